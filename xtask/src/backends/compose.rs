//! docker-compose.yml: what we expect in it, and how to use it where an engine answers.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::paths;
use crate::proc;

/// The images, by service. Kafka's tag is the version whose jars a private instance runs.
pub const IMAGES: &[(&str, &str)] =
    &[("postgres", "postgres:17"), ("rabbitmq", "rabbitmq:4"), ("kafka", concat!("apache/kafka:", "4.2.0"))];

/// Whether an engine answers and can do compose; the error says what is missing.
pub fn available() -> Result<()> {
    if !succeeds(&["version", "--format", "{{.Server.Version}}"]) {
        bail!("no container engine");
    }
    if !succeeds(&["compose", "version"]) {
        bail!("no docker compose");
    }
    Ok(())
}

/// Starts one service and waits for its health check.
pub fn up(service: &str) -> Result<()> {
    proc::output(docker().args(["compose", "up", "--detach", "--wait", "--wait-timeout", "180", service])).map(drop)
}

/// Stops one service and forgets its data.
pub fn down(service: &str) -> Result<()> {
    proc::output(docker().args(["compose", "rm", "--stop", "--force", "--volumes", service])).map(drop)
}

fn docker() -> Command {
    let mut command = Command::new("docker");
    command.current_dir(paths::root());
    command
}

fn succeeds(args: &[&str]) -> bool {
    let silent = docker().args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    silent.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use saphyr::{LoadableYamlNode, Yaml};

    use super::IMAGES;
    use crate::backends::{Server, servers};
    use crate::{backends, paths};

    fn with_service(check: impl Fn(&dyn Server, &Yaml<'_>)) {
        let text = fs::read_to_string(paths::root().join("docker-compose.yml")).unwrap();
        let documents = Yaml::load_from_str(&text).unwrap();
        assert_eq!(documents.len(), 1);
        let services = documents[0]["services"].as_mapping().unwrap();
        assert_eq!(services.len(), servers().count(), "a service for each server and no other");
        for server in servers() {
            check(server, &documents[0]["services"][server.name()]);
        }
    }

    fn strings<'a>(list: &'a Yaml<'_>) -> Vec<&'a str> {
        list.as_sequence().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
    }

    #[test]
    fn images_and_names_are_those_we_expect() {
        with_service(|server, service| {
            let image = IMAGES.iter().find(|(name, _)| *name == server.name()).unwrap().1;
            assert_eq!(service["image"].as_str(), Some(image));
            assert_eq!(service["container_name"].as_str(), Some(format!("sagabus-{}", server.name()).as_str()));
        });
        assert!(IMAGES.iter().any(|(_, image)| image.ends_with(backends::kafka::VERSION)), "container and jars differ");
    }

    #[test]
    fn ports_are_ours_on_loopback_and_not_ephemeral() {
        with_service(|server, service| {
            let ports = strings(&service["ports"]);
            assert_eq!(ports.len(), 1, "{}", server.name());
            let prefix = format!("127.0.0.1:{}:", server.port());
            assert!(ports[0].starts_with(&prefix), "{} listens on {}", server.name(), ports[0]);
            assert!(server.port() < 32768);
            assert!(server.address(server.port()).contains(&format!("127.0.0.1:{}", server.port())));
        });
    }

    #[test]
    fn every_service_has_a_health_check_that_gives_up() {
        with_service(|server, service| {
            let health = &service["healthcheck"];
            let test = strings(&health["test"]);
            let command = match server.name() {
                "postgres" => "pg_isready",
                "rabbitmq" => "rabbitmq-diagnostics",
                _ => "/opt/kafka/bin/kafka-broker-api-versions.sh",
            };
            assert_eq!(test[..2], ["CMD", command]);
            for duration in ["interval", "timeout", "start_period"] {
                let text = health[duration].as_str().unwrap();
                let seconds: u32 = text.strip_suffix('s').unwrap().parse().unwrap();
                assert!(seconds > 0, "{} {duration}", server.name());
            }
            assert!(health["retries"].as_integer().unwrap() > 0);
        });
    }

    #[test]
    fn credentials_are_those_in_our_addresses() {
        with_service(|server, service| {
            let environment = &service["environment"];
            let (user, password) = match server.name() {
                "postgres" => ("POSTGRES_USER", "POSTGRES_PASSWORD"),
                "rabbitmq" => ("RABBITMQ_DEFAULT_USER", "RABBITMQ_DEFAULT_PASS"),
                _ => {
                    let advertised = server.address(server.port()).replace("kafka://", "PLAINTEXT://");
                    assert_eq!(environment["KAFKA_ADVERTISED_LISTENERS"].as_str(), Some(advertised.as_str()));
                    return;
                }
            };
            let login =
                format!("//{}:{}@", environment[user].as_str().unwrap(), environment[password].as_str().unwrap());
            assert!(server.address(1).contains(&login), "{login}");
        });
    }
}
