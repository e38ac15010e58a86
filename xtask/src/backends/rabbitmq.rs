//! RabbitMQ: a private node with its own name, cookie, ports and port mapper, beside whatever the system runs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::private_server::{PrivateServer, free_port};
use super::state::Running;
use super::{Server, certificates, wire};
use crate::proc;

/// Not the one on the path: that wrapper insists on the system's node and user.
pub const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// RabbitMQ.
#[derive(Debug)]
pub struct RabbitMq;

impl Server for RabbitMq {
    fn name(&self) -> &'static str {
        "rabbitmq"
    }

    fn variable(&self) -> &'static str {
        "SAGABUS_RABBITMQ_URL"
    }

    fn port(&self) -> u16 {
        15673
    }

    fn address(&self, port: u16) -> String {
        format!("amqp://sagabus:sagabus@127.0.0.1:{port}/%2f")
    }

    fn probe(&self, address: &str) -> Result<String> {
        let (product, version, _) = wire::amqp(address)?;
        ensure!(product == "RabbitMQ", "the broker calls itself {product:?}");
        Ok(format!("{product} {version}"))
    }

    fn extras(&self) -> Result<Vec<(&'static str, String)>> {
        let Some(dir) = Running::load(self.name())?.and_then(|running| running.dir) else { return Ok(Vec::new()) };
        let Ok(port) = fs::read_to_string(dir.join("tls/port")) else { return Ok(Vec::new()) };
        let url = format!("amqps://sagabus:sagabus@localhost:{port}/%2f");
        let certificates = dir.join("tls").display().to_string();
        Ok(vec![("SAGABUS_RABBITMQ_TLS_URL", url), ("SAGABUS_RABBITMQ_TLS_DIR", certificates)])
    }

    fn packages(&self) -> &'static [&'static str] {
        &["rabbitmq-server"]
    }

    fn locate(&self) -> Result<PathBuf> {
        let server = PathBuf::from(SERVER);
        ensure!(server.is_file(), "no rabbitmq server found (no {SERVER})");
        Ok(server)
    }

    fn start(&self, server: PathBuf, instance: &mut PrivateServer) -> Result<()> {
        let mapper = start_port_mapper(instance)?;
        let tls = free_port(instance.port + 1000)?;
        certificates::make(instance)?;
        write(instance, "tls/port", &tls.to_string())?;
        let config = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\ndefault_user = sagabus\ndefault_pass = sagabus\n\
             cluster_name = {}\nlog.console = true\nlog.console.level = warning\nlog.file = false\n\
             disk_free_limit.absolute = 50MB\nlisteners.ssl.1 = 127.0.0.1:{tls}\n\
             ssl_options.cacertfile = {dir}/ca.pem\nssl_options.certfile = {dir}/server.pem\n\
             ssl_options.keyfile = {dir}/server.key\nssl_options.verify = verify_peer\n\
             ssl_options.fail_if_no_peer_cert = true\n",
            instance.port,
            node(instance),
            dir = instance.dir.join("tls").display(),
        );
        write(instance, "rabbitmq.conf", &config)?;
        write(instance, "enabled_plugins", "[].\n")?;
        write(instance, "env.conf", "")?;
        write(instance, ".erlang.cookie", &format!("sagabus-{}", std::process::id()))?;
        // Erlang refuses a cookie that others could read.
        let cookie = instance.dir.join(".erlang.cookie");
        fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400)).context("protect the cookie")?;
        let environment = environment(instance, mapper)?;
        // kept, so that it can be started once more in the same place
        let text = serde_json::to_string(&environment).context("encode rabbitmq's environment")?;
        write(instance, "environment.json", &text)?;
        instance.launch(instance.command(server).envs(environment))
    }

    fn confirm(&self, instance: &PrivateServer) -> Result<()> {
        let (_, _, cluster) = wire::amqp(&instance.address)?;
        ensure!(cluster == node(instance), "the broker on port {} calls itself {cluster:?}", instance.port);
        Ok(())
    }
}

fn node(instance: &PrivateServer) -> String {
    format!("sagabus-{}-{}@localhost", std::process::id(), instance.port)
}

fn environment(instance: &PrivateServer, mapper: u16) -> Result<BTreeMap<&'static str, String>> {
    let dir = |name: &str| instance.dir.join(name).display().to_string();
    Ok(BTreeMap::from([
        ("HOME", instance.dir.display().to_string()),
        ("RABBITMQ_CONF_ENV_FILE", dir("env.conf")),
        ("RABBITMQ_NODENAME", node(instance)),
        ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".to_owned()),
        ("RABBITMQ_NODE_PORT", instance.port.to_string()),
        ("RABBITMQ_DIST_PORT", free_port(25673)?.to_string()),
        ("RABBITMQ_MNESIA_BASE", dir("mnesia")),
        ("RABBITMQ_LOG_BASE", dir("log")),
        ("RABBITMQ_CONFIG_FILE", dir("rabbitmq.conf")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", dir("enabled_plugins")),
        ("RABBITMQ_PID_FILE", dir("pid")),
        ("ERL_EPMD_PORT", mapper.to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        // Distribution on loopback only: the cookie is all that protects it.
        ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}".to_owned()),
    ]))
}

/// Erlang would start one by itself, as a daemon on all interfaces that nobody stops.
fn start_port_mapper(instance: &mut PrivateServer) -> Result<u16> {
    let program = proc::which("epmd").context("no epmd on the path (package erlang-base)")?;
    let port = free_port(14369)?;
    let mut command = instance.command(program);
    command.args(["-address", "127.0.0.1", "-port", &port.to_string()]);
    instance.launch(&mut command)?;
    Ok(port)
}

fn write(instance: &PrivateServer, name: &str, text: &str) -> Result<()> {
    fs::write(instance.dir.join(name), text).with_context(|| format!("write rabbitmq's {name}"))
}
