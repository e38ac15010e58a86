//! A RabbitMQ broker that programs reach through a proxy.

use anyhow::{Context, Result};
use sagabus_testkit::amqp;
use sagabus_testkit::proxy::{Proxy, amqp::Settlements};
use tokio::runtime::Runtime;

use crate::backends::wire::host_and_port;
use crate::checks::fixture::environment::Installation;

/// What its clients are given in the URL: a dead broker is noticed within two of these seconds.
const PARAMETERS: &str = "&heartbeat=2&confirm_timeout=4&connect_timeout=2&delivery_limit=8";

/// See the module.
pub struct ProxiedBroker {
    /// What the processes talk to.
    pub proxy: Proxy<Settlements>,
    /// The broker's own address.
    pub direct: String,
    runtime: Runtime,
}

impl ProxiedBroker {
    /// Has the programs reach the installation's broker through a proxy.
    pub fn start(installation: &mut Installation) -> Result<Self> {
        let direct = installation.servers.broker()?.to_owned();
        let (host, port) = host_and_port(&direct, 5672)?;
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().context("start a runtime for the proxy")?;
        let proxy = runtime.block_on(Proxy::before_amqp(format!("{host}:{port}"))).context("start the proxy")?;
        let through = direct.replacen(&format!("{host}:{port}"), &format!("127.0.0.1:{}", proxy.port), 1);
        installation.servers.reroute(through, PARAMETERS)?;
        Ok(Self { proxy, direct, runtime })
    }

    /// Publishes past the proxy as a hostile client.
    pub fn publish(&self, queue: &str, kind: &[u8], headers: &[u8], id: &str) -> Result<()> {
        self.runtime.block_on(amqp::publish(&self.direct, queue, kind, headers, id)).context("publish frames by hand")
    }
}
