//! Kafka: one node in KRaft mode, from its jars (through Maven, Java 17 or newer), since Debian has no package.

pub mod secure;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::private_server::{PrivateServer, free_port};
use super::{Server, apt, wire};
use crate::{paths, proc};

/// The version of jars and container.
pub const VERSION: &str = "4.2.0";

/// What Kafka logs through; it has to be named, since Kafka itself only depends on the interface.
const LOG4J: &str = "2.24.3";

/// Kafka.
#[derive(Debug)]
pub struct Kafka;

impl Kafka {
    /// Starts the broker on the log directory that is there.
    pub fn run(&self, jars: &Path, instance: &mut PrivateServer) -> Result<()> {
        // the collector and the pauses of Kafka's own script: with a small heap and one thread it stood still for 20 ms, twice
        // a second, and what was measured was that
        let heap = [
            "-Xms256m",
            "-Xmx1g",
            "-XX:+UseG1GC",
            "-XX:MaxGCPauseMillis=20",
            "-XX:InitiatingHeapOccupancyPercent=35",
            "-Djava.awt.headless=true",
        ];
        let mut broker = java_command(instance, jars, &heap)?;
        broker.arg("kafka.Kafka").arg(instance.dir.join("server.properties"));
        instance.launch(&mut broker)
    }
}

impl Server for Kafka {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn variable(&self) -> &'static str {
        "SAGABUS_KAFKA_URL"
    }

    fn extras(&self) -> Result<Vec<(&'static str, String)>> {
        secure::extras()
    }

    fn port(&self) -> u16 {
        19092
    }

    fn address(&self, port: u16) -> String {
        format!("kafka://127.0.0.1:{port}")
    }

    fn probe(&self, address: &str) -> Result<String> {
        let cluster = wire::kafka(address)?;
        ensure!(cluster.brokers > 0, "the cluster has no broker yet");
        Ok(format!("Kafka, cluster {}", cluster.id))
    }

    fn packages(&self) -> &'static [&'static str] {
        &[]
    }

    fn locate(&self) -> Result<PathBuf> {
        java()?;
        let jars = jars();
        ensure!(jars.join("complete").is_file(), "no kafka {VERSION} jars in {}", jars.display());
        Ok(jars)
    }

    fn fetch(&self) -> Result<()> {
        if java().is_err() {
            apt::install(&["openjdk-17-jre-headless"])?;
        }
        if !secure::buildable() {
            apt::install(secure::PACKAGES)?;
        }
        if proc::which("mvn").is_none() {
            apt::install(&["maven"])?;
        }
        fetch_jars()
    }

    fn start(&self, jars: PathBuf, instance: &mut PrivateServer) -> Result<()> {
        let controller = free_port(instance.port + 1)?;
        let properties = instance.dir.join("server.properties");
        let secure = secure::prepare(instance)?;
        let text = settings(instance, controller, secure.as_ref());
        fs::write(&properties, text).context("write kafka's settings")?;
        fs::write(instance.dir.join("log4j2.properties"), LOGGING).context("write kafka's logging")?;
        let mut format = java_command(instance, &jars, &["-Xmx128m"])?;
        format.args(["kafka.tools.StorageTool", "format", "-t", &cluster_id(instance), "-c"]).arg(&properties);
        format.args(secure.iter().flat_map(secure::Secure::users));
        instance.run(&mut format).context("format the log directory")?;
        self.run(&jars, instance)
    }

    fn confirm(&self, instance: &PrivateServer) -> Result<()> {
        let cluster = wire::kafka(&instance.address)?;
        let ours = cluster_id(instance);
        ensure!(cluster.id == ours, "the broker on port {} belongs to cluster {}", instance.port, cluster.id);
        Ok(())
    }
}

const LOGGING: &str = "rootLogger.level = WARN
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %m (%c)%n
";

fn settings(instance: &PrivateServer, controller: u16, secure: Option<&secure::Secure>) -> String {
    let (port, logs) = (instance.port, instance.dir.join("data"));
    let (listeners, advertised, protocols, more) = secure.map(secure::Secure::settings).unwrap_or_default();
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{listeners}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{advertised}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT{protocols}
log.dirs={}
num.partitions=4
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# Checks kill processes by the hundred, and each is missed for that long.
group.min.session.timeout.ms=1000
num.network.threads=2
num.io.threads=4
background.threads=2
# Its default of 128 MiB would not fit into the heap.
log.cleaner.dedupe.buffer.size=8388608
log.segment.bytes=67108864
log.index.size.max.bytes=1048576
log.retention.hours=2
{more}",
        logs.display()
    )
}

/// A uuid as Kafka writes them: 16 bytes in url-safe base64 without padding, so 22 characters of which the last stands
/// for two bits only. Made of the process and the port, so that no two instances share it.
fn cluster_id(instance: &PrivateServer) -> String {
    format!("sagabus{:09}{:05}A", std::process::id(), instance.port)
}

fn java_command(instance: &PrivateServer, jars: &Path, options: &[&str]) -> Result<Command> {
    let mut command = instance.command(java()?);
    command
        .args(options)
        .arg(format!("-Dlog4j2.configurationFile={}", instance.dir.join("log4j2.properties").display()));
    command.arg("-cp").arg(format!("{}/*", jars.display()));
    Ok(command)
}

/// Java, if it is new enough for Kafka 4.
fn java() -> Result<PathBuf> {
    let java = proc::which("java").context("no java on the path")?;
    let version = proc::output(Command::new(&java).arg("--version"))?;
    let major = version.split_whitespace().nth(1).and_then(|number| number.split('.').next()?.parse::<u32>().ok());
    ensure!(major.is_some_and(|major| major >= 17), "kafka {VERSION} needs java 17, found {version:?}");
    Ok(java)
}

fn jars() -> PathBuf {
    paths::servers().join(format!("kafka-{VERSION}-jars"))
}

fn fetch_jars() -> Result<()> {
    let jars = jars();
    fs::create_dir_all(&jars).with_context(|| format!("create {}", jars.display()))?;
    let dependency = |group: &str, artifact: &str, version: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        )
    };
    let pom = format!(
        "<project><modelVersion>4.0.0</modelVersion><groupId>sagabus</groupId><artifactId>kafka-jars</artifactId>\
         <version>1</version><packaging>pom</packaging><dependencies>{}{}{}</dependencies></project>\n",
        dependency("org.apache.kafka", "kafka_2.13", VERSION),
        dependency("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J),
        dependency("org.apache.logging.log4j", "log4j-core", LOG4J),
    );
    fs::write(jars.join("pom.xml"), pom).context("write the pom for kafka's jars")?;
    eprintln!("fetching kafka {VERSION} into {}", jars.display());
    let mut maven = Command::new("mvn");
    maven.current_dir(&jars).args(["-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime"]);
    maven.arg(format!("-DoutputDirectory={}", jars.display()));
    proc::output(&mut maven).context("fetch kafka's jars")?;
    fs::write(jars.join("complete"), "").context("mark kafka's jars as complete")
}
