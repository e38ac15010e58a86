//! Before a Kafka broker that says it is on 127.0.0.1.

use super::{Filter, Proxy};
use std::io;

/// Puts the proxy's port in place of the broker's in all answers, so that a client never learns where the broker is.
#[derive(Debug)]
pub struct Readdress {
    theirs: [u8; 4],
    ours: [u8; 4],
}

impl Filter for Readdress {
    const PREAMBLE: usize = 0;
    const HEAD: usize = 4;
    type Connection = ();

    fn rest(head: &[u8]) -> usize {
        u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize
    }

    /// Wherever a host is followed by a port, in whatever version of whatever answer.
    fn downward(&self, (): &(), mut frame: Vec<u8>) -> Option<Vec<u8>> {
        let host = b"127.0.0.1";
        for at in Self::HEAD..frame.len().saturating_sub(host.len() + 3) {
            let port = at + host.len();
            if frame[at..].starts_with(host) && frame[port..].starts_with(&self.theirs) {
                frame[port..port + 4].copy_from_slice(&self.ours);
            }
        }
        Some(frame)
    }
}

impl Proxy<Readdress> {
    /// Starts a proxy before the broker at this port of 127.0.0.1.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn before_kafka(broker: u16) -> io::Result<Self> {
        let bytes = |port: u16| u32::from(port).to_be_bytes();
        let make = |port| Readdress { theirs: bytes(broker), ours: bytes(port) };
        Self::start(format!("127.0.0.1:{broker}"), make).await
    }
}
