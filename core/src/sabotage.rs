//! Known defects, compiled in on demand, that the suites must find. Nothing of it is in a normal build.
//!
//! With the hidden feature `__sabotage`, `SAGABUS_SABOTAGE=name` switches one on.

/// The defects: (name, what it breaks).
pub const BUGS: &[(&str, &str)] = &[
    ("settle-before-commit", "the delivery is settled before its unit is committed"),
    ("skip-inbox-check", "the inbox row is neither probed nor required to be new"),
    ("inbox-apart", "the inbox row commits in another transaction than the effects"),
    ("dispatch-before-commit", "messages leave before the unit that sends them commits"),
    ("outbox-delete-early", "the outbox row is deleted before the confirm"),
    ("no-version-check", "a saga update does not compare the version"),
    ("no-instance-check", "a saga update compares the version, not the instance"),
    ("timer-delete-early", "a timer is deleted before its message is handled"),
    ("commit-error-is-success", "a failed commit is taken for a success"),
    ("attempts-in-memory", "attempts are not persisted"),
    ("stop-drops-work", "a stop drops work in flight and settles it"),
    ("second-saga-duplicate", "the second handler of one event is skipped as a duplicate"),
];

/// Whether a defect is switched on.
#[cfg(not(feature = "__sabotage"))]
#[inline(always)]
pub fn active(_bug: &'static str) -> bool {
    false
}

/// Whether a defect is switched on.
#[cfg(feature = "__sabotage")]
pub fn active(bug: &'static str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    debug_assert!(BUGS.iter().any(|(name, _)| *name == bug), "{bug} is not in the list");
    CHOSEN.get_or_init(|| std::env::var("SAGABUS_SABOTAGE").ok()).as_deref() == Some(bug)
}
