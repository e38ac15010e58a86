//! What lies in a queue of a broker, whichever it is: another program's view.

use crate::{
    kafka::{self, is_kafka},
    latency::{Clock, Latencies},
    rabbit::{self, is_rabbit},
};
use anyhow::Result;
use std::sync::atomic::AtomicU64;

pub(crate) fn is_broker(url: &str) -> bool {
    is_rabbit(url) || is_kafka(url)
}

/// The port of a broker on this machine.
pub(crate) fn port(url: &str) -> Option<u16> {
    let server = url.split_once("://")?.1.split(['/', '?', ',']).next()?;
    let (host, port) = server.rsplit('@').next()?.rsplit_once(':')?;
    port.parse().ok().filter(|_| is_broker(url) && ["127.0.0.1", "localhost", "[::1]"].contains(&host))
}

/// Reads outputs until `messages` of this run were there, and notes when; `seen` counts them.
pub(crate) async fn read_outputs(
    url: &str,
    queue: &str,
    messages: u64,
    clock: Clock,
    seen: &AtomicU64,
) -> Result<Latencies> {
    if is_kafka(url) {
        kafka::sink::read_outputs(url, queue, messages, clock, seen).await
    } else {
        rabbit::sink::read_outputs(url, queue, messages, clock, seen).await
    }
}

/// How many outputs there were in all, and how many different ones.
pub(crate) async fn count(url: &str, queue: &str) -> Result<(i64, i64)> {
    if is_kafka(url) { kafka::sink::count(url, queue).await } else { rabbit::sink::count(url, queue).await }
}

/// How many wait in a queue, once its consumers have ended.
pub(crate) async fn left(url: &str, queue: &str) -> Result<i64> {
    if is_kafka(url) { kafka::sink::left(url, queue).await } else { rabbit::sink::left(url, queue).await }
}

#[cfg(test)]
mod tests {
    use super::port;

    #[test]
    fn only_a_broker_beside_us_has_a_port_to_watch() {
        assert_eq!(port("amqp://user:word@127.0.0.1:15673/%2f?prefix=bench-1."), Some(15673));
        assert_eq!(port("kafka://localhost:19092"), Some(19092));
        assert_eq!(port("amqp://user:word@broker.example:5672/%2f"), None);
        assert_eq!(port("postgres://127.0.0.1:5432/x"), None);
        assert_eq!(port("amqp://"), None);
    }
}
