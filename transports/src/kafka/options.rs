//! How to use the cluster.

use super::oauth::{OauthToken, Tokens};
use crate::url::Parameter;
use sagabus_core::{Error, Result, Runtime};
use std::{fmt, time::Duration};

/// The unit of a URL's durations that name none.
const SECOND: Duration = Duration::from_secs(1);

/// How a [`KafkaTransport`](super::KafkaTransport) works. `Debug` shows no secret.
#[derive(Clone)]
#[non_exhaustive]
pub struct KafkaOptions {
    /// Goes before every topic and group, to keep the systems on one cluster apart (URL: `prefix`; default `sagabus.`).
    pub prefix: String,
    /// How many partitions a topic gets when it is created (URL: `partitions`; default: 12, and one that exists may have any
    /// number). It bounds how many processes share an endpoint's work. A topic that exists is not changed, since that would
    /// move keys to other partitions; one that has fewer than are asked for here is refused.
    pub partitions: Option<u16>,
    /// How many replicas a topic gets (URL: `replication`; default: the cluster's own setting).
    pub replication: Option<u16>,
    /// Whether missing topics are created (URL: `create=no` to refuse to start without them; default yes).
    pub create: bool,
    /// Largest message in bytes, headers included (URL: `max_message`; default 1 MiB + 64 KiB). Topics are created with
    /// it; one that exists and takes less is refused at start.
    pub max_message: usize,
    /// How long a batch waits for company (URL: `linger`, such as `5ms`; a bare number counts milliseconds; default 1 ms).
    pub linger: Duration,
    /// How long to try to send before the outcome is unknown (URL: `send_timeout`, such as `30s`; a bare number counts seconds; default 30 s).
    pub send_timeout: Duration,
    /// How long to wait for the cluster's first answer (URL: `connect_timeout`; default 10 s).
    pub connect_timeout: Duration,
    /// After so long without a sign of life a process is taken for dead and its partitions go to others (URL:
    /// `session_timeout`; default 15 s, at least what the brokers allow, usually 6).
    pub session_timeout: Duration,
    /// When a partition is to move to another process: how long its messages in flight may take to finish first (URL:
    /// `drain_timeout`; default 30 s). What takes longer runs a second time elsewhere; the inbox sees to it
    /// that it counts once.
    pub drain_timeout: Duration,
    /// A stable name of this process, for static membership: a restart within the session timeout moves no partitions
    /// (URL: `instance`; default none).
    pub instance: Option<String>,
    /// How user and password are shown to the broker (URL: `sasl`: `plain`, `scram-sha-256` or `scram-sha-512`; default
    /// `plain`); or that a token is instead (`oauthbearer`, without a user in the URL, and with
    /// [`oauth`](KafkaOptions::oauth)). All but `plain` need the feature `tls`.
    pub sasl: Sasl,
    /// A file with the authorities that sign the brokers' certificates, PEM (URL: `ca_file`; default: the system's).
    pub ca_file: Option<String>,
    /// Files with the client's certificate and its key, PEM (URL: `cert_file` and `key_file`).
    pub identity_files: Option<(String, String)>,
    /// Time, ids, tasks.
    pub runtime: Runtime,
    pub(super) tokens: Option<Tokens>,
}

/// How a user is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sasl {
    /// The password itself: over `kafka+ssl://` only, if the network is not one's own.
    Plain,
    /// SCRAM-SHA-256.
    ScramSha256,
    /// SCRAM-SHA-512.
    ScramSha512,
    /// Tokens of an OAuth 2 provider: see [`KafkaOptions::oauth`].
    OauthBearer,
}

impl Sasl {
    pub(super) fn mechanism(self) -> &'static str {
        match self {
            Sasl::Plain => "PLAIN",
            Sasl::ScramSha256 => "SCRAM-SHA-256",
            Sasl::ScramSha512 => "SCRAM-SHA-512",
            Sasl::OauthBearer => "OAUTHBEARER",
        }
    }
}

impl KafkaOptions {
    /// The defaults.
    pub fn new(runtime: Runtime) -> Self {
        Self {
            prefix: "sagabus.".into(),
            partitions: None,
            replication: None,
            create: true,
            max_message: (1 << 20) + (64 << 10),
            linger: Duration::from_millis(1),
            send_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            session_timeout: Duration::from_secs(15),
            drain_timeout: Duration::from_secs(30),
            instance: None,
            sasl: Sasl::Plain,
            ca_file: None,
            identity_files: None,
            runtime,
            tokens: None,
        }
    }

    /// Where tokens come from, for `sasl=oauthbearer`.
    ///
    /// It is called on threads of the clients, at the start and whenever half of the last token's life is over. It may
    /// block, for a request to the provider; that client does nothing else meanwhile, so it should give up after a few
    /// seconds, and tokens should live for a minute at least. After an error it is called again, some ten seconds later.
    /// The error's text is logged and shown.
    ///
    /// ```
    /// # use sagabus_core::Runtime;
    /// # use sagabus_transports::kafka::{KafkaOptions, OauthToken};
    /// # use std::time::Duration;
    /// let options = KafkaOptions::new(Runtime::system()).oauth(|| {
    ///     let token = std::fs::read_to_string("/run/secrets/kafka-token")?;
    ///     Ok(OauthToken::new(token.trim(), "shop", Duration::from_secs(300)))
    /// });
    /// ```
    #[must_use]
    pub fn oauth(
        mut self,
        source: impl Fn() -> std::result::Result<OauthToken, Box<dyn std::error::Error + Send + Sync>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.tokens = Some(Tokens::new(self.runtime.clone(), source));
        self
    }

    /// Sets one parameter of the URL.
    pub(super) fn set(&mut self, parameter: Parameter<'_>) -> Result<()> {
        match parameter.name() {
            "prefix" => self.prefix = parameter.raw().to_string(),
            "partitions" => self.partitions = Some(parameter.number()?),
            "replication" => self.replication = Some(parameter.number()?),
            "create" => self.create = parameter.one_of(&[("yes", true), ("no", false)])?,
            "max_message" => {
                let bytes: u32 = parameter.number()?;
                self.max_message = usize::try_from(bytes).map_err(|_| parameter.out_of_range())?;
            }
            "linger" => self.linger = parameter.duration(Duration::from_millis(1))?,
            "send_timeout" => self.send_timeout = parameter.duration(SECOND)?,
            "connect_timeout" => self.connect_timeout = parameter.duration(SECOND)?,
            "session_timeout" => self.session_timeout = parameter.duration(SECOND)?,
            "drain_timeout" => self.drain_timeout = parameter.duration(SECOND)?,
            "instance" => self.instance = Some(parameter.text()?),
            "sasl" => {
                self.sasl = parameter.one_of(&[
                    ("plain", Sasl::Plain),
                    ("scram-sha-256", Sasl::ScramSha256),
                    ("scram-sha-512", Sasl::ScramSha512),
                    ("oauthbearer", Sasl::OauthBearer),
                ])?;
            }
            "ca_file" => self.ca_file = Some(parameter.text()?),
            "cert_file" => self.identity_files.get_or_insert_default().0 = parameter.text()?,
            "key_file" => self.identity_files.get_or_insert_default().1 = parameter.text()?,
            _ => return Err(parameter.unknown()),
        }
        Ok(())
    }

    pub(super) fn check(&self) -> Result<()> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if self.prefix.is_empty() || self.prefix.len() > 64 || !self.prefix.chars().all(plain) {
            return Err(Error::invalid("the prefix must be 1 to 64 letters, digits and . - _"));
        }
        if self.partitions == Some(0) || self.replication == Some(0) {
            return Err(Error::invalid("the numbers of partitions and replicas must be at least 1"));
        }
        if !((64 << 10)..=(64 << 20)).contains(&self.max_message) {
            return Err(Error::invalid("the largest message must have 64 KiB to 64 MiB"));
        }
        if self.session_timeout < Duration::from_secs(1) || self.send_timeout < Duration::from_secs(1) {
            return Err(Error::invalid("the session timeout and the send timeout must be at least 1 s"));
        }
        // the group waits five minutes at most for a member that is giving up partitions
        if self.drain_timeout > Duration::from_secs(240) {
            return Err(Error::invalid("the drain timeout must be at most 240 s"));
        }
        if self.identity_files.as_ref().is_some_and(|(cert, key)| cert.is_empty() || key.is_empty()) {
            return Err(Error::invalid("a client certificate needs both parameters, cert_file and key_file"));
        }
        match (self.sasl == Sasl::OauthBearer, self.tokens.is_some()) {
            (true, false) => Err(Error::invalid(
                "sasl=oauthbearer needs a source of tokens: give one to KafkaOptions::oauth, connect with these options by \
                 KafkaTransport::connect, and give the transport to the endpoint by value",
            )),
            (false, true) => Err(Error::invalid(
                "a source of tokens is given, and the kafka URL does not say sasl=oauthbearer: add that, or leave out \
                 KafkaOptions::oauth",
            )),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaOptions")
            .field("prefix", &self.prefix)
            .field("partitions", &self.partitions)
            .field("create", &self.create)
            .field("session_timeout", &self.session_timeout)
            .field("instance", &self.instance)
            .field("sasl", &self.sasl)
            .finish_non_exhaustive()
    }
}
