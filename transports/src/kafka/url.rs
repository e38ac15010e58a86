//! Where the cluster is, and who we are there.

use super::options::{KafkaOptions, Sasl};
use crate::url::{Authority, percent_decode, read_parameters};
use rdkafka::ClientConfig;
use sagabus_core::{Error, Result};

/// What every client of the cluster needs to know. It holds the password, and has no `Debug`.
#[derive(Clone)]
pub(super) struct ClientSettings(ClientConfig);

impl ClientSettings {
    /// The settings that all clients share.
    pub(super) fn config(&self) -> ClientConfig {
        self.0.clone()
    }
}

/// Reads `kafka://user:password@host:port,host2:port2/?prefix=shop.` or `kafka+ssl://…`. No error repeats any of it, since
/// all of it may be secret.
pub(super) fn parse(url: &str, mut options: KafkaOptions) -> Result<(ClientSettings, KafkaOptions)> {
    let wrong = || Error::invalid("the kafka URL cannot be read: it is kafka://user:password@host:port,host:port");
    let base = read_parameters("kafka", url, |parameter| options.set(parameter))?;
    options.check()?;
    let (scheme, rest) = base.split_once("://").ok_or_else(wrong)?;
    let tls = match scheme {
        "kafka" => false,
        "kafka+ssl" => true,
        _ => return Err(wrong()),
    };
    if tls && !cfg!(feature = "tls") {
        return Err(Error::unsupported("kafka+ssl:// needs the feature `tls`, which this build does not have"));
    }
    let authority = Authority::parse(rest.strip_suffix('/').unwrap_or(rest));
    let servers = authority.hosts().map(|host| server(host).ok_or_else(wrong)).collect::<Result<Vec<_>>>()?;
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers.join(","));
    config.set("client.id", "sagabus");
    // ten seconds, its default, are long for a broker that restarts
    config.set("reconnect.backoff.ms", "50").set("reconnect.backoff.max.ms", "1000");
    config.set("socket.keepalive.enable", "true");
    config.set("topic.metadata.refresh.interval.ms", "30000");
    // lost connections are reported by what fails because of them
    config.set("log.connection.close", "false");
    let user = authority.user;
    let oauth = options.sasl == Sasl::OauthBearer;
    if oauth && user.is_some() {
        return Err(Error::invalid("sasl=oauthbearer takes no user in the kafka URL: the token says who we are"));
    }
    let sasl = user.is_some() || oauth;
    config.set(
        "security.protocol",
        match (tls, sasl) {
            (false, false) => "plaintext",
            (false, true) => "sasl_plaintext",
            (true, false) => "ssl",
            (true, true) => "sasl_ssl",
        },
    );
    if sasl {
        if options.sasl != Sasl::Plain && !cfg!(feature = "tls") {
            return Err(Error::unsupported(
                "SCRAM and OAUTHBEARER need the feature `tls`, which this build does not have",
            ));
        }
        config.set("sasl.mechanisms", options.sasl.mechanism());
    }
    if let Some(user) = user {
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        config.set("sasl.username", percent_decode(name).ok_or_else(wrong)?);
        config.set("sasl.password", percent_decode(password).ok_or_else(wrong)?);
    }
    if tls {
        if let Some(file) = &options.ca_file {
            config.set("ssl.ca.location", file);
        }
        if let Some((cert, key)) = &options.identity_files {
            config.set("ssl.certificate.location", cert).set("ssl.key.location", key);
        }
    }
    Ok((ClientSettings(config), options))
}

/// `host`, `host:port` or `[v6]:port`, with the port.
fn server(host: &str) -> Option<String> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port.parse::<u16>().ok()?),
        _ => (host, 9092),
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '[' | ']' | ':');
    (!name.is_empty() && name.chars().all(fits)).then(|| format!("{name}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sagabus_core::Runtime;
    use std::time::Duration;

    fn read(url: &str) -> Result<(ClientConfig, KafkaOptions)> {
        let (cluster, options) = parse(url, KafkaOptions::new(Runtime::system()))?;
        Ok((cluster.0, options))
    }

    #[test]
    fn several_hosts_a_user_and_parameters() {
        let (config, options) =
            read("kafka://me:p%40s%3As@a:1,b,[::1]:3/?partitions=4&prefix=x.&session_timeout=7s&linger=5&send_timeout=1500ms&instance=pod%2D1")
                .unwrap();
        assert_eq!(config.get("bootstrap.servers"), Some("a:1,b:9092,[::1]:3"));
        assert_eq!(config.get("security.protocol"), Some("sasl_plaintext"));
        assert_eq!(config.get("sasl.username"), Some("me"));
        assert_eq!(config.get("sasl.password"), Some("p@s:s"));
        assert_eq!((options.partitions, options.prefix.as_str()), (Some(4), "x."));
        assert_eq!((options.linger, options.send_timeout), (Duration::from_millis(5), Duration::from_millis(1500)));
        assert_eq!((options.session_timeout, options.instance.as_deref()), (Duration::from_secs(7), Some("pod-1")));
        assert_eq!(read("kafka://localhost").unwrap().0.get("security.protocol"), Some("plaintext"));
    }

    #[test]
    fn errors_and_debug_show_no_secret() {
        for url in [
            "kafka://me:hunter2@host:x/",
            "kafka:me:hunter2@host",
            "kafka://me:hunter2%@host",
            "kafka://me:hunter2@ho st",
            "kafka://me:hunter2@host/?partitions=hunter2",
            "kafka://me:hunter2@host/?nonsense=hunter2",
            "kafka://me:hunter2@host/?drain_timeout=1000",
            "kafka://me:hunter2@host/?cert_file=hunter2",
            "http://me:hunter2@host/",
        ] {
            let error = read(url).err().unwrap_or_else(|| panic!("{url} was taken"));
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
        let (_, options) = read("kafka://me:hunter2@host").unwrap();
        assert!(!format!("{options:?}").contains("hunter2"));
    }

    fn tokens() -> KafkaOptions {
        KafkaOptions::new(Runtime::system())
            .oauth(|| Ok(super::super::OauthToken::new("hunter2", "me", Duration::from_secs(60))))
    }

    #[test]
    fn tokens_need_a_source_and_no_user() {
        let error = |url, options| parse(url, options).map(drop).unwrap_err();
        let bare = error("kafka://host?sasl=oauthbearer", KafkaOptions::new(Runtime::system()));
        assert!(bare.is_invalid() && bare.to_string().contains("KafkaOptions::oauth"), "{bare:?}");
        for url in ["kafka://host", "kafka://me:hunter2@host?sasl=scram-sha-256"] {
            let error = error(url, tokens());
            assert!(error.is_invalid() && error.to_string().contains("sasl=oauthbearer"), "{error:?}");
        }
        let user = error("kafka://me:hunter2@host?sasl=oauthbearer", tokens());
        assert!(user.is_invalid() && !format!("{user:?}").contains("hunter2"), "{user:?}");
        assert!(!format!("{:?}", tokens()).contains("hunter2"));
        if cfg!(feature = "tls") {
            let (cluster, _) = parse("kafka+ssl://host?sasl=oauthbearer", tokens()).unwrap();
            assert_eq!(cluster.0.get("sasl.mechanisms"), Some("OAUTHBEARER"));
            assert_eq!(cluster.0.get("security.protocol"), Some("sasl_ssl"));
            assert_eq!(cluster.0.get("sasl.username"), None);
        } else {
            assert!(error("kafka://host?sasl=oauthbearer", tokens()).is_unsupported());
        }
    }

    #[test]
    fn what_the_build_lacks_is_named() {
        if cfg!(feature = "tls") {
            assert_eq!(read("kafka+ssl://me:x@host").unwrap().0.get("security.protocol"), Some("sasl_ssl"));
            return;
        }
        for url in ["kafka+ssl://host", "kafka://me:hunter2@host?sasl=scram-sha-512"] {
            let error = read(url).err().unwrap();
            assert!(error.is_unsupported() && error.to_string().contains("`tls`"), "{error:?}");
        }
    }
}
