//! What librdkafka and the broker say, in the words of the port.

use rdkafka::{error::KafkaError, types::RDKafkaErrorCode as Code};
use sagabus_core::{Error, ErrorKind};

/// An operation failed: for the moment, or because something is wrong that only a person can change.
pub(super) fn failed(doing: impl std::fmt::Display, error: KafkaError) -> Error {
    let kind = error.rdkafka_error_code().map_or(ErrorKind::Transient, kind_of);
    Error::with_source(kind, doing.to_string(), error)
}

/// The same from a code alone, as the results of topics come.
pub(super) fn failed_with(doing: impl std::fmt::Display, code: Code) -> Error {
    Error::with_source(kind_of(code), doing.to_string(), KafkaError::AdminOp(code))
}

pub(super) fn kind_of(code: Code) -> ErrorKind {
    match code {
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::SaslAuthenticationFailed
        | Code::Authentication
        | Code::FencedInstanceId
        | Code::Fenced => ErrorKind::Backend,
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => ErrorKind::NotFound,
        Code::InvalidTopic
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::InvalidConfig
        | Code::PolicyViolation => ErrorKind::Invalid,
        _ => ErrorKind::Transient,
    }
}

/// The error for settings that the client library refuses before anything is sent.
pub(super) fn unusable(error: KafkaError) -> Error {
    // its text names a setting and, for some, the value: never shown
    let text = match &error {
        KafkaError::ClientConfig(_, why, setting, _) => format!("make a kafka client: {setting}: {why}"),
        // about files with certificates: it names the setting, and what is wrong with what is in it
        KafkaError::ClientCreation(why) if why.starts_with("ssl.") => format!("make a kafka client: {why}"),
        _ => "make a kafka client: the settings do not work together".to_string(),
    };
    Error::invalid(text)
}
