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
pub(super) const REASONS: &[Reason] = &[
    Reason {
        source: "core/src",
        files: &["admin.rs", "queues.rs", "store.rs", "transport.rs"],
        reason: "the ports name each other's types, and have no code",
    },
    Reason {
        source: "core/src",
        files: &["context.rs", "invocation_context.rs"],
        reason: "one struct with two faces: the handler's methods, and the engine's trait",
    },
    Reason {
        source: "sagas/src",
        files: &["saga/definition.rs", "saga/route.rs", "saga/routes.rs", "saga/state.rs"],
        reason: "the trait Saga declares its routes, and each route is generic over it",
    },
    Reason {
        source: "outbox/src",
        files: &["memory/handle.rs", "memory/lease.rs", "memory/model.rs", "memory/transaction.rs"],
        reason: "methods of the handle, by port",
    },
    Reason {
        source: "transports/src",
        files: &["memory/broker.rs", "memory/receiver.rs", "memory/transport.rs"],
        reason: "handle types of one broker",
    },
    Reason {
        source: "testkit/src",
        files: &["diff/draw.rs", "diff/units.rs"],
        reason: "one struct in two files: what it draws, and the units among that",
    },
    Reason {
        source: "benches/src",
        files: &["engine/audit.rs", "engine/audit_postgres.rs", "engine/fixture.rs"],
        reason: "constants, and one audit for two databases",
    },
    Reason {
        source: "xtask/src",
        files: &["checks/hostile/cases.rs", "checks/hostile/messages.rs"],
        reason: "one list in two files, with its constants",
    },
    Reason {
        source: "xtask/src",
        files: &["checks/nemesis/cluster_under_test.rs", "checks/nemesis/kafka/mod.rs"],
        reason: "the strikes stand beside the cluster that they strike",
    },
];
