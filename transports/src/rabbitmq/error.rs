//! What lapin and the broker say, in the words of the port.

use lapin::{ErrorKind as Lapin, protocol::AMQPErrorKind};
use sagabus_core::{Error, ErrorKind};

/// The broker's code: 404, 405, 406 and so on; `None` for whatever did not come from the broker.
pub(super) fn code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        Lapin::ProtocolError(error) => Some(match error.kind() {
            AMQPErrorKind::Soft(soft) => soft.get_id(),
            AMQPErrorKind::Hard(hard) => hard.get_id(),
        }),
        _ => None,
    }
}

/// The connection, or the broker, is in the way for the moment; or a setting is wrong, which the broker tells by code.
pub(super) fn failed(doing: impl std::fmt::Display, error: lapin::Error) -> Error {
    let kind = match code(&error) {
        Some(403) => ErrorKind::Backend,
        Some(404) => ErrorKind::NotFound,
        Some(406) => ErrorKind::Invalid,
        _ => ErrorKind::Transient,
    };
    Error::with_source(kind, doing.to_string(), error)
}

/// It may have reached the broker.
pub(super) fn unknown(error: lapin::Error) -> Error {
    Error::with_source(ErrorKind::Unknown, "the connection to rabbitmq broke before the confirm", error)
}
