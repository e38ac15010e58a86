//! The circles that stay, each with the reason.

/// The directories of the crates that are looked at.
pub(super) const CRATES: &[&str] = &[
    "core/src",
    "sagas/src",
    "outbox/src",
    "transports/src",
    "macros/src",
    "src",
    "testkit/src",
    "tests/src",
    "benches/src",
    "xtask/src",
];

/// A circle that is meant.
#[derive(Debug)]
pub(super) struct Reason {
    /// One of [`CRATES`].
    pub(super) source: &'static str,
    /// All files of the circle, in order.
    pub(super) files: &'static [&'static str],
    /// Why it does no harm.
    pub(super) reason: &'static str,
}

/// Each must be there as it is written here: a circle that grows is another one.
pub(super) const REASONS: &[Reason] = &[];
