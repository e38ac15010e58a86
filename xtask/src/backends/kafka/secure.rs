//! Listeners with TLS and passwords beside the plain one, and rights: for the suite that is about them.
//!
//! Whoever comes by the plain listener may do everything, as may the user `sagabus` and the client's certificate. The user
//! `nobody` may do nothing. A password is the user's name.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::backends::certificates;
use crate::backends::private_server::{PrivateServer, free_port};
use crate::backends::state::Running;
use crate::proc;

/// Ports and place of the listeners.
#[derive(Debug)]
pub struct Secure {
    /// TLS, with certificates on both sides.
    ssl: u16,
    /// TLS, with passwords or tokens.
    sasl_ssl: u16,
    /// Passwords alone.
    sasl: u16,
    /// Where the certificates are.
    dir: String,
}

/// What certificates and a client with TLS are made with.
pub const PACKAGES: &[&str] = &["openssl", "libssl-dev"];

/// Whether they are there.
pub fn buildable() -> bool {
    proc::which("openssl").is_some() && Path::new("/usr/include/openssl/ssl.h").is_file()
}

/// Makes certificates, where that can be done, and finds ports.
pub fn prepare(instance: &PrivateServer) -> Result<Option<Secure>> {
    if !buildable() {
        return Ok(None);
    }
    certificates::make(instance)?;
    let dir = instance.dir.join("tls");
    let text = |name: &str| fs::read_to_string(dir.join(name)).with_context(|| format!("read {name}"));
    let pair = text("server.key")? + &text("server.pem")?;
    fs::write(dir.join("server-pair.pem"), pair).context("write the server's key and certificate")?;
    let ssl = free_port(instance.port + 1000)?;
    let sasl_ssl = free_port(ssl + 1)?;
    let sasl = free_port(sasl_ssl + 1)?;
    fs::write(dir.join("ports"), format!("{ssl} {sasl_ssl} {sasl}")).context("write down kafka's ports")?;
    Ok(Some(Secure { ssl, sasl_ssl, sasl, dir: dir.display().to_string() }))
}

/// What the suite needs to know: a directory with certificates, and the ports in the file `ports`.
pub fn extras() -> Result<Vec<(&'static str, String)>> {
    let Some(dir) = Running::load("kafka")?.and_then(|running| running.dir) else { return Ok(Vec::new()) };
    let dir = dir.join("tls");
    if !dir.join("ports").is_file() {
        return Ok(Vec::new());
    }
    Ok(vec![("SAGABUS_KAFKA_TLS_DIR", dir.display().to_string())])
}

impl Secure {
    /// What formatting the log directory has to be told: users of SCRAM live in the cluster's metadata.
    pub fn users(&self) -> Vec<String> {
        let user = |name: &str, size: u32| format!("SCRAM-SHA-{size}=[name={name},password={name}]");
        let all = ["sagabus", "nobody"].map(|name| [user(name, 256), user(name, 512)]);
        all.into_iter().flatten().flat_map(|user| ["--add-scram".to_owned(), user]).collect()
    }

    /// More listeners, what they tell clients, their protocols, and further lines.
    pub fn settings(&self) -> (String, String, String, String) {
        let Self { ssl, sasl_ssl, sasl, dir } = self;
        let listeners =
            format!(",SSL://localhost:{ssl},SASL_SSL://localhost:{sasl_ssl},SASL_PLAINTEXT://127.0.0.1:{sasl}");
        let protocols = ",SSL:SSL,SASL_SSL:SASL_SSL,SASL_PLAINTEXT:SASL_PLAINTEXT".to_owned();
        let plain = "org.apache.kafka.common.security.plain.PlainLoginModule required user_sagabus=\"sagabus\" \
                     user_nobody=\"nobody\";";
        let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
        // tokens that nobody signed: the broker's own validator for tests
        let token = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required \
                     unsecuredLoginStringClaim_sub=\"broker\";";
        let more = format!(
            "ssl.keystore.type=PEM
ssl.keystore.location={dir}/server-pair.pem
ssl.truststore.type=PEM
ssl.truststore.location={dir}/ca.pem
listener.name.ssl.ssl.client.auth=required
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl_ssl.plain.sasl.jaas.config={plain}
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config={scram}
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={scram}
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config={token}
listener.name.sasl_ssl.oauthbearer.connections.max.reauth.ms=3600000
listener.name.sasl_plaintext.sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config={plain}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:sagabus;User:CN=client
"
        );
        (listeners.clone(), listeners, protocols, more)
    }
}
