//! Asks a port what it is, in the first words of each protocol. No client library: xtask has to build in seconds.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

const PATIENCE: Duration = Duration::from_secs(5);

/// What a Kafka broker says of its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaCluster {
    /// The cluster's id.
    pub id: String,
    /// How many brokers it has now.
    pub brokers: i32,
}

/// `PostgreSQL`, if it answers an SSLRequest as PostgreSQL does.
pub fn postgres(address: &str) -> Result<()> {
    let mut stream = connect(address, 5432)?;
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).context("ask for tls")?;
    let answer = read_exactly::<1>(&mut stream)?;
    ensure!(matches!(answer[0], b'S' | b'N'), "not a postgresql server: it answered {:?}", answer[0] as char);
    Ok(())
}

/// Product, version and cluster name from the server properties of an AMQP 0-9-1 broker.
pub fn amqp(address: &str) -> Result<(String, String, String)> {
    let mut stream = connect(address, 5672)?;
    stream.write_all(b"AMQP\0\0\x09\x01").context("send the protocol header")?;
    let head = read_exactly::<7>(&mut stream)?;
    ensure!(head[..3] == [1, 0, 0], "not an amqp 0-9-1 broker");
    let payload = read_sized(&mut stream, u32::from_be_bytes([head[3], head[4], head[5], head[6]]))?;
    ensure!(payload.starts_with(&[0, 10, 0, 10]), "not an amqp 0-9-1 broker");
    let property = |name: &str| amqp_string(&payload, name).unwrap_or_default();
    Ok((property("product"), property("version"), property("cluster_name")))
}

/// Cluster id and broker count, through a Metadata request without topics.
pub fn kafka(address: &str) -> Result<KafkaCluster> {
    let mut stream = connect(address.split(',').next().unwrap_or(address), 9092)?;
    // Metadata version 5, correlation id 7, client id "xtask", no topics, do not create any.
    let request = b"\0\x03\0\x05\0\0\0\x07\0\x05xtask\0\0\0\0\0";
    stream.write_all(&(request.len() as u32).to_be_bytes()).context("ask for metadata")?;
    stream.write_all(request).context("ask for metadata")?;
    let size = u32::from_be_bytes(read_exactly::<4>(&mut stream)?);
    kafka_metadata(&read_sized(&mut stream, size)?).context("not a kafka broker")
}

/// The host and port of a URL or a plain `host:port`.
pub fn host_and_port(address: &str, default_port: u16) -> Result<(String, u16)> {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    ensure!(!host.is_empty(), "no host in the address");
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => {
            let port = port.parse().with_context(|| format!("read the port in {host}"))?;
            Ok((name.trim_matches(['[', ']']).to_owned(), port))
        }
        _ => Ok((host.trim_matches(['[', ']']).to_owned(), default_port)),
    }
}

fn connect(address: &str, default_port: u16) -> Result<TcpStream> {
    let (host, port) = host_and_port(address, default_port)?;
    let found = (host.as_str(), port).to_socket_addrs().with_context(|| format!("look up {host}"))?;
    let mut last = None;
    for candidate in found {
        match TcpStream::connect_timeout(&candidate, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE)).context("set a timeout")?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error).with_context(|| format!("connect to {host}:{port}")),
        None => bail!("{host} has no address"),
    }
}

fn read_exactly<const N: usize>(stream: &mut TcpStream) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).context("read the answer")?;
    Ok(bytes)
}

fn read_sized(stream: &mut TcpStream, size: u32) -> Result<Vec<u8>> {
    ensure!(size < 1 << 20, "an answer of {size} bytes is none of this protocol");
    let mut bytes = vec![0; size as usize];
    stream.read_exact(&mut bytes).context("read the answer")?;
    Ok(bytes)
}

/// A long string of a field table: short-string name, 'S', length, bytes.
fn amqp_string(table: &[u8], name: &str) -> Option<String> {
    let mut key = vec![name.len() as u8];
    key.extend_from_slice(name.as_bytes());
    key.push(b'S');
    let at = table.windows(key.len()).position(|window| window == key)? + key.len();
    let length = u32::from_be_bytes(table.get(at..at + 4)?.try_into().ok()?) as usize;
    Some(String::from_utf8_lossy(table.get(at + 4..at + 4 + length)?).into_owned())
}

fn kafka_metadata(response: &[u8]) -> Option<KafkaCluster> {
    let mut rest = response;
    let mut take = |n: usize| -> Option<&[u8]> {
        let (head, tail) = rest.split_at_checked(n)?;
        rest = tail;
        Some(head)
    };
    let correlation = take(4)?;
    if correlation != [0, 0, 0, 7] {
        return None;
    }
    take(4)?; // throttle time
    let brokers = i32::from_be_bytes(take(4)?.try_into().ok()?);
    for _ in 0..brokers {
        take(4)?; // node id
        let host = i16::from_be_bytes(take(2)?.try_into().ok()?);
        take(host.max(0) as usize + 4)?; // and the port
        let rack = i16::from_be_bytes(take(2)?.try_into().ok()?);
        take(rack.max(0) as usize)?;
    }
    let length = i16::from_be_bytes(take(2)?.try_into().ok()?);
    let id = String::from_utf8_lossy(take(length.max(0) as usize)?).into_owned();
    Some(KafkaCluster { id, brokers })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_found_in_every_kind_of_address() {
        let parse = |address| host_and_port(address, 1).unwrap();
        assert_eq!(parse("postgres://u:p@127.0.0.1:15432/db?x=1"), ("127.0.0.1".into(), 15432));
        assert_eq!(parse("amqp://h/%2f"), ("h".into(), 1));
        assert_eq!(parse("localhost:19092"), ("localhost".into(), 19092));
        assert_eq!(parse("postgres://[::1]:5/x"), ("::1".into(), 5));
        assert_eq!(parse("postgres://[::1]/x"), ("::1".into(), 1));
        assert!(host_and_port("postgres:///x", 1).is_err());
        assert!(host_and_port("h:port", 1).is_err());
    }

    #[test]
    fn a_metadata_response_gives_the_cluster() {
        let response = b"\0\0\0\x07\0\0\0\0\0\0\0\x01\0\0\0\x01\0\x01h\0\0\x4a\x94\xff\xff\0\x03abc\0\0\0\x01";
        assert_eq!(kafka_metadata(response), Some(KafkaCluster { id: "abc".into(), brokers: 1 }));
        assert_eq!(kafka_metadata(&response[..20]), None);
        assert_eq!(kafka_metadata(b"HTTP/1.1 400 Bad Request"), None);
    }

    #[test]
    fn server_properties_are_found_by_name() {
        let table = b"\x07productS\0\0\0\x08RabbitMQ\x07versionS\0\0\0\x063.10.8";
        assert_eq!(amqp_string(table, "product").unwrap(), "RabbitMQ");
        assert_eq!(amqp_string(table, "version").unwrap(), "3.10.8");
        assert_eq!(amqp_string(table, "cluster_name"), None);
    }
}
