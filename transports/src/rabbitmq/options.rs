//! Where the broker is and how to use it.

use crate::url::{Authority, Parameter, read_parameters};
use lapin::uri::AMQPUri;
use sagabus_core::{Error, ErrorKind, Result, Runtime};
use std::{fmt, time::Duration};

/// The unit of a URL's durations that name none.
const SECOND: Duration = Duration::from_secs(1);

/// How a [`RabbitMqTransport`](super::RabbitMqTransport) works. `Debug` shows no secret.
#[derive(Clone)]
#[non_exhaustive]
pub struct RabbitMqOptions {
    /// Goes before every name on the broker, to keep systems on one virtual host apart (URL: `prefix`; default none).
    pub prefix: String,
    /// How often a message may be delivered again before the broker takes it out of the queue and the endpoint buries it
    /// (URL: `delivery_limit`; default 20). It catches what kills connections or processes; failures of handlers and of
    /// the store are not counted by it. The partitions of ordered endpoints have ten times the limit: every end of a
    /// process counts for all that was sent ahead to it, and a message that the broker takes out has lost its place. It is part of
    /// a queue's settings and cannot be changed once the queue exists.
    pub delivery_limit: u32,
    /// Into how many queues the keys of an ordered endpoint are divided (URL: `partitions`; default 8, at most 32).
    pub partitions: u16,
    /// How many messages may be unconfirmed on the way to the broker (default 1000).
    pub publish_window: usize,
    /// How long a connection attempt may take per host (URL: `connect_timeout`, such as `5s`; a bare number counts seconds; default 5 s).
    pub connect_timeout: Duration,
    /// How long to wait for a confirm before the outcome is unknown (URL: `confirm_timeout`; default 30 s: a
    /// change of a quorum queue's leader takes seconds).
    pub confirm_timeout: Duration,
    /// Heartbeat (URL: `heartbeat`, in seconds; default 10). A dead peer is noticed within two of them.
    pub heartbeat: u16,
    /// How often to make sure that this process's queues and bindings are there (URL: `topology_check`;
    /// default 60 s). What is missing usually shows itself at once; the removal of a single binding does not.
    pub topology_check: Duration,
    /// Whether what an endpoint had subscribed to before, and does not name any more, is kept and reported (URL:
    /// `stale=keep`). Otherwise its bindings are removed when the endpoint is built (`stale=remove`, the default). While
    /// two versions of an endpoint run side by side, keep them: whichever was started last would end the other's.
    pub keep_stale: bool,
    /// The authorities that sign the broker's certificate, as PEM; the system's where there is none (URL: `ca_file`, a
    /// path; feature `tls`).
    pub ca_pem: Option<String>,
    /// The client's certificate and its PKCS#8 key, both PEM (URL: `cert_file` and `key_file`; feature `tls`).
    pub identity_pem: Option<(Vec<u8>, Vec<u8>)>,
    /// Time, ids, tasks.
    pub runtime: Runtime,
}

impl RabbitMqOptions {
    /// The defaults.
    pub fn new(runtime: Runtime) -> Self {
        Self {
            prefix: String::new(),
            delivery_limit: 20,
            partitions: 8,
            publish_window: 1000,
            connect_timeout: Duration::from_secs(5),
            confirm_timeout: Duration::from_secs(30),
            heartbeat: 10,
            topology_check: Duration::from_secs(60),
            keep_stale: false,
            ca_pem: None,
            identity_pem: None,
            runtime,
        }
    }

    fn set(&mut self, parameter: Parameter<'_>) -> Result<()> {
        let file = |parameter: Parameter<'_>| read_file(parameter.name(), parameter.raw());
        let text = |pem| String::from_utf8(pem).map_err(|_| parameter.out_of_range());
        match parameter.name() {
            "prefix" => {
                sagabus_core::check_name("prefix", parameter.raw())?;
                self.prefix = parameter.raw().to_string();
            }
            "delivery_limit" => self.delivery_limit = parameter.number()?,
            "partitions" => self.partitions = parameter.number()?,
            "stale" => self.keep_stale = parameter.one_of(&[("keep", true), ("remove", false)])?,
            "heartbeat" => self.heartbeat = parameter.number()?,
            "ca_file" => self.ca_pem = Some(text(file(parameter)?)?),
            "cert_file" => self.identity_pem.get_or_insert_default().0 = file(parameter)?,
            "key_file" => self.identity_pem.get_or_insert_default().1 = file(parameter)?,
            "connect_timeout" => self.connect_timeout = parameter.duration(SECOND)?,
            "topology_check" => self.topology_check = parameter.duration(SECOND)?,
            "confirm_timeout" => self.confirm_timeout = parameter.duration(SECOND)?,
            _ => return Err(parameter.unknown()),
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        if !(1..=sagabus_core::SHARDS).contains(&self.partitions) {
            return Err(Error::invalid("the number of partitions must be 1 to 32"));
        }
        if self.delivery_limit == 0 || self.publish_window == 0 || self.heartbeat == 0 {
            return Err(Error::invalid("the delivery limit, the publish window and the heartbeat must be at least 1"));
        }
        if self.topology_check < Duration::from_secs(1) {
            return Err(Error::invalid("the topology must not be checked more often than once a second"));
        }
        if self.identity_pem.as_ref().is_some_and(|(certificate, key)| certificate.is_empty() || key.is_empty()) {
            return Err(Error::invalid("a client certificate needs its key, and a key its certificate"));
        }
        if self.prefix.len() > 64 {
            return Err(Error::invalid("the prefix must be at most 64 bytes long"));
        }
        Ok(())
    }
}

fn read_file(name: &str, path: &str) -> Result<Vec<u8>> {
    let failed = |e| Error::with_source(ErrorKind::Invalid, format!("read the file of parameter {name}"), e);
    std::fs::read(path).map_err(failed)
}

impl fmt::Debug for RabbitMqOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqOptions")
            .field("prefix", &self.prefix)
            .field("delivery_limit", &self.delivery_limit)
            .field("partitions", &self.partitions)
            .field("heartbeat", &self.heartbeat)
            .field("identity", &self.identity_pem.as_ref().map(|_| "redacted"))
            .finish_non_exhaustive()
    }
}

/// Reads `amqp://user:password@host:port,host2:port2/vhost?heartbeat=10`. No error repeats any of it, since all of it
/// may be secret.
pub(super) fn parse(url: &str, mut options: RabbitMqOptions) -> Result<(Vec<AMQPUri>, RabbitMqOptions)> {
    let wrong = || Error::invalid("the rabbitmq URL cannot be read: it is amqp://user:password@host:port/vhost");
    let base = read_parameters("rabbitmq", url, |parameter| options.set(parameter))?;
    options.check()?;
    let (scheme, rest) = base.split_once("://").ok_or_else(wrong)?;
    if scheme == "amqps" && !cfg!(feature = "tls") {
        return Err(Error::unsupported("amqps:// needs the feature `tls`, which this build does not have"));
    }
    let (authority, vhost) = rest.split_once('/').unwrap_or((rest, "%2f"));
    let authority = Authority::parse(authority);
    if authority.hosts().any(|host| host.contains('[')) {
        // the URL parser below would silently connect to localhost instead
        return Err(Error::invalid("the rabbitmq URL has an IPv6 address: write a host name"));
    }
    let vhost = if vhost.is_empty() { "%2f" } else { vhost };
    let user = authority.user.map(|user| format!("{user}@")).unwrap_or_default();
    let uri = |host: &str| {
        let mut uri: AMQPUri = format!("{scheme}://{user}{host}/{vhost}").parse().map_err(|_| wrong())?;
        uri.query.heartbeat = Some(options.heartbeat);
        uri.query.connection_timeout = Some(u64::try_from(options.connect_timeout.as_millis()).unwrap_or(u64::MAX));
        Ok(uri)
    };
    let uris = authority.hosts().map(uri).collect::<Result<Vec<AMQPUri>>>()?;
    Ok((uris, options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<(Vec<AMQPUri>, RabbitMqOptions)> {
        parse(url, RabbitMqOptions::new(Runtime::system()))
    }

    #[test]
    fn several_hosts_and_parameters() {
        let (uris, options) = read("amqp://me:p%40ss@a:1,b,c:3/shop?partitions=4&prefix=x.&heartbeat=7&confirm_timeout=1500ms&topology_check=9").unwrap();
        let timeouts = (options.confirm_timeout, options.topology_check);
        assert_eq!(timeouts, (Duration::from_millis(1500), Duration::from_secs(9)));
        let hosts: Vec<_> = uris.iter().map(|u| (u.authority.host.as_str(), u.authority.port)).collect();
        assert_eq!(hosts, [("a", 1), ("b", 5672), ("c", 3)]);
        assert!(uris.iter().all(|u| u.vhost == "shop" && u.authority.userinfo.password == "p@ss"));
        assert_eq!((options.partitions, options.prefix.as_str(), options.heartbeat), (4, "x.", 7));
        assert_eq!(read("amqp://localhost").unwrap().0[0].vhost, "/");
    }

    #[test]
    fn errors_and_debug_show_no_secret() {
        for url in [
            "amqp://me:hunter2@host:x/",
            "amqp:me:hunter2@host",
            "amqp://me:hunter2@[::1]:5672/",
            "amqp://me:hunter2@host/?partitions=hunter2",
            "amqp://me:hunter2@host/?nonsense=hunter2",
            "amqp://me:hunter2@host/?partitions=0",
            "amqp://me:hunter2@host/?stale=hunter2",
            "amqp://me:hunter2@host/?ca_file=/nowhere/hunter2",
            "amqp://me:hunter2@host/?key_file=/proc/self/cmdline",
            "http://me:hunter2@host/",
        ] {
            let error = read(url).err().unwrap_or_else(|| panic!("{url} was taken"));
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
        let mut options = RabbitMqOptions::new(Runtime::system());
        options.identity_pem = Some((b"hunter2".to_vec(), b"hunter2".to_vec()));
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}
