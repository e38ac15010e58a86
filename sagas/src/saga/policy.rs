//! What becomes of a message, given the saga that was found.

use super::{
    correlate,
    kind::{Kind, Role},
};
use sagabus_core::{Decision, Headers, NotFound, OnExisting, SagaRow};

const LATE: &str = "late-timeout";
const NOT_FOUND: &str = "saga-not-found";
const EXISTS: &str = "saga-exists";

/// A saga that completed and is only kept for a time does not exist for starters, and is over for all others.
pub(crate) fn decide(kind: &Kind, role: Role, headers: &Headers, saga: Option<&SagaRow>) -> Decision {
    let live = saga.filter(|row| !row.completed);
    if let Some(address) = correlate::address(kind, headers) {
        return match (live, role) {
            (Some(row), _) if row.instance == address.instance => Decision::Run,
            (_, Role::Timeout) => Decision::Drop(LATE),
            // That instance was there when the request left, so it has ended; no other one may take its reply.
            (_, Role::Start(_)) => ended(kind, headers, &address.key, NotFound::DeadLetter),
            (_, Role::Continue(policy) | Role::Alias(_, policy)) => ended(kind, headers, &address.key, policy),
        };
    }
    match (live, role) {
        (None, Role::Start(_)) | (Some(_), Role::Start(OnExisting::Handle)) => Decision::Run,
        (Some(_), Role::Start(OnExisting::Discard)) => Decision::Drop(EXISTS),
        (Some(row), Role::Start(OnExisting::DeadLetter)) => Decision::DeadLetter(format!(
            "saga {} exists already under key {:?}, and {} starts only new ones",
            kind.kind, row.key, headers.message_type
        )),
        (Some(_), Role::Continue(_) | Role::Alias(..)) => Decision::Run,
        (_, Role::Timeout) => Decision::Drop(LATE),
        (None, Role::Continue(policy) | Role::Alias(_, policy)) => match saga {
            Some(completed) => ended(kind, headers, &completed.key, policy),
            None => not_found(kind, headers, policy),
        },
    }
}

/// Waiting would not help.
fn ended(kind: &Kind, headers: &Headers, key: &str, policy: NotFound) -> Decision {
    match policy {
        NotFound::Discard => Decision::Drop(NOT_FOUND),
        NotFound::Park(_) | NotFound::DeadLetter => Decision::DeadLetter(format!(
            "{} is for saga {} under key {key:?}, which has ended",
            headers.message_type, kind.kind
        )),
    }
}

fn not_found(kind: &Kind, headers: &Headers, policy: NotFound) -> Decision {
    match policy {
        NotFound::Park(limit) => Decision::Park(limit),
        NotFound::Discard => Decision::Drop(NOT_FOUND),
        NotFound::DeadLetter => Decision::DeadLetter(format!(
            "there is no saga {} for this {}, which does not start one",
            kind.kind, headers.message_type
        )),
    }
}
