//! The context of clients that only ask questions, and the log of the client library.

use super::oauth::{self, Tokens};
use rdkafka::{
    ClientContext, TopicPartitionList,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, ConsumerContext},
    error::KafkaError,
    types::{RDKafkaErrorCode as Code, RDKafkaRespErr},
};
use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

/// Sends librdkafka's log to `tracing`. It holds no passwords.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, text: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, "kafka: {text}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => tracing::warn!(facility, "kafka: {text}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(facility, "kafka: {text}"),
        RDKafkaLogLevel::Debug => tracing::debug!(facility, "kafka: {text}"),
    }
}

/// The context of clients that have no events: every question has an answer or an error. It keeps what librdkafka says about
/// the connection.
pub(super) struct MetadataContext {
    /// The problem that tells most, with its reason.
    problem: Mutex<Option<(ConnectProblem, String)>>,
    tokens: Option<Tokens>,
    asked: AtomicBool,
}

impl MetadataContext {
    pub(super) fn new(tokens: Option<Tokens>) -> Self {
        Self { problem: Mutex::default(), tokens, asked: AtomicBool::new(false) }
    }

    /// Forgets the problem.
    pub(super) fn clear_problem(&self) {
        crate::lock(&self.problem).take();
    }

    /// The problem that tells most since it was cleared, with its reason.
    pub(super) fn problem(&self) -> Option<(ConnectProblem, String)> {
        crate::lock(&self.problem).clone()
    }

    /// Whether the client has asked for a token, and got an answer.
    pub(super) fn has_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }
}

/// What stands between this process and the cluster: the later ones tell more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ConnectProblem {
    Network,
    Certificate,
    Password,
}

impl ClientContext for MetadataContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> std::result::Result<OAuthToken, Box<dyn std::error::Error>> {
        let answer = oauth::generate(self.tokens.as_ref());
        self.asked.store(true, Ordering::Release);
        answer
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, "kafka: {reason}");
        let problem = match error.rdkafka_error_code() {
            Some(Code::Authentication | Code::SaslAuthenticationFailed) => ConnectProblem::Password,
            Some(Code::SSL) => ConnectProblem::Certificate,
            // the brokers that were asked, all together: not the reason
            Some(Code::AllBrokersDown) => return,
            _ => ConnectProblem::Network,
        };
        let mut worst = crate::lock(&self.problem);
        if worst.as_ref().is_none_or(|(known, _)| *known <= problem) {
            *worst = Some((problem, reason.to_string()));
        }
    }
}

impl ConsumerContext for MetadataContext {
    // without this the default would assign partitions that are not read
    fn rebalance(&self, _: &BaseConsumer<Self>, _: RDKafkaRespErr, _: &mut TopicPartitionList) {}
}
