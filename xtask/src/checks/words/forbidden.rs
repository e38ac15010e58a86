//! The lists of `cargo xtask words`.

/// A word that is not to be a part of a name in product code (its plural neither), and what says more.
pub(super) const WORDS: &[(&str, &str)] = &[
    ("desk", "write context, in-flight table, read-ahead buffer, lender"),
    ("bell", "wake-up"),
    ("parcel", "received message, record"),
    ("home", "cluster, topology manager"),
    ("place", "wake key, dedup slot, topic partition"),
    ("turn", "wait for the key, blocked key, topology lock, write turn"),
    ("sieve", "frame filter"),
    ("patience", "timeout, backoff"),
    ("tenure", "shard lease"),
    ("rider", "participant of a shared transaction"),
    ("story", "disposition row"),
    ("stories", "disposition rows"),
    ("saving", "statement batch"),
    ("notes", "announcements, pending commits"),
    ("hurdle", "connect problem"),
    ("onlooker", "auditor"),
    ("letters", "dead letters, requeue, outcome codes"),
    ("bury", "dead-letter"),
    ("buries", "dead-letters"),
    ("buried", "dead-lettered"),
    ("life", "instance"),
    ("lives", "instances"),
    ("nobody", "no handler, no subscriber, no owner"),
    ("whoever", "the component's name"),
];

/// Names that are not ours to choose, each with the reason.
pub(super) const ALLOWED: &[(&str, &str)] = &[("drop_in_place", "the standard library's")];

/// Adjectives and quantities that say nothing as the whole name of a constant.
pub(super) const ADJECTIVES: &[&str] = &[
    "AGAIN", "AGE", "CALM", "DESKS", "ENOUGH", "FEW", "FRESH", "FULL", "GLANCE", "GRACE", "HEAVY", "HURRY", "IDLE",
    "LARGE", "LEAST", "LITTLE", "LONG", "LOOK", "LOOKS", "LOW", "MANY", "MOST", "OFTEN", "PASS", "PASSES", "PLENTY",
    "QUICK", "RARE", "RELIEVED", "REST", "ROOM", "SELDOM", "SHARE", "SHORT", "SLOW", "SMALL", "SOON", "SPAN", "STEP",
    "USED", "WARY",
];
