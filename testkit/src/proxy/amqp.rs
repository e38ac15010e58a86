//! Before an AMQP broker: the proxy counts what is delivered and not settled, by what passes through it and not by what a
//! client believes; it swallows confirms and acks.

use super::{Filter, Proxy};
use crate::amqp::{self, method};
use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// See the module.
#[derive(Debug, Default)]
pub struct Settlements {
    swallow_confirms: AtomicBool,
    swallow_acks: AtomicBool,
    swallowed: AtomicU64,
}

/// The deliveries of a connection that are not settled, by channel.
#[derive(Debug, Default)]
pub struct Unsettled(Mutex<BTreeMap<u16, Channel>>);

#[derive(Debug, Default)]
struct Channel {
    /// Queues by consumer tags.
    consumers: HashMap<Vec<u8>, String>,
    /// Queues by delivery tags.
    deliveries: BTreeMap<u64, String>,
}

impl Unsettled {
    fn channels(&self) -> MutexGuard<'_, BTreeMap<u16, Channel>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Filter for Settlements {
    const PREAMBLE: usize = 8;
    const HEAD: usize = 7;
    type Connection = Unsettled;

    fn rest(head: &[u8]) -> usize {
        amqp::rest(head)
    }

    fn upward(&self, unsettled: &Unsettled, frame: Vec<u8>) -> Option<Vec<u8>> {
        if self.swallows(&frame, &self.swallow_acks) {
            return None;
        }
        let mut channels = unsettled.channels();
        let number = u16::from_be_bytes([frame[1], frame[2]]);
        let arguments = &frame[11.min(frame.len())..];
        match method(&frame) {
            Some((60, 20)) => {
                let (queue, rest) = short(&arguments[2..]);
                let queue = String::from_utf8_lossy(queue).into_owned();
                channels.entry(number).or_default().consumers.insert(short(rest).0.to_vec(), queue);
            }
            Some((60, method @ (80 | 90 | 120))) => {
                let (tag, multiple) = (long(arguments), method != 90 && arguments[8] & 1 == 1);
                let deliveries = &mut channels.entry(number).or_default().deliveries;
                if multiple {
                    *deliveries = deliveries.split_off(&(tag + 1));
                } else {
                    deliveries.remove(&tag);
                }
            }
            Some((20, 40 | 41)) => drop(channels.remove(&number)),
            _ => {}
        }
        drop(channels);
        Some(frame)
    }

    fn downward(&self, unsettled: &Unsettled, frame: Vec<u8>) -> Option<Vec<u8>> {
        if self.swallows(&frame, &self.swallow_confirms) {
            return None;
        }
        let mut channels = unsettled.channels();
        let number = u16::from_be_bytes([frame[1], frame[2]]);
        match method(&frame) {
            Some((60, 60)) => {
                let (tag, rest) = short(&frame[11..]);
                let channel = channels.entry(number).or_default();
                if let Some(queue) = channel.consumers.get(tag).cloned() {
                    channel.deliveries.insert(long(rest), queue);
                }
            }
            Some((20, 40)) => drop(channels.remove(&number)),
            _ => {}
        }
        drop(channels);
        Some(frame)
    }
}

impl Settlements {
    /// An ack and a confirm are the same frame in different directions.
    fn swallows(&self, frame: &[u8], wanted: &AtomicBool) -> bool {
        let swallows = wanted.load(Ordering::SeqCst) && matches!(method(frame), Some((60, 80 | 120)));
        self.swallowed.fetch_add(u64::from(swallows), Ordering::SeqCst);
        swallows
    }
}

impl Proxy<Settlements> {
    /// Starts a proxy before the broker at `host:port`.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn before_amqp(target: impl Into<String>) -> io::Result<Self> {
        Self::start(target, |_| Settlements::default()).await
    }

    /// Confirms do not arrive any more, or do again.
    pub fn swallow_confirms(&self, swallow: bool) {
        self.filter().swallow_confirms.store(swallow, Ordering::SeqCst);
    }

    /// Acks do not arrive any more, or do again.
    pub fn swallow_acks(&self, swallow: bool) {
        self.filter().swallow_acks.store(swallow, Ordering::SeqCst);
    }

    /// How many frames were swallowed.
    pub fn swallowed(&self) -> u64 {
        self.filter().swallowed.load(Ordering::SeqCst)
    }

    /// Messages of these queues that are out through this proxy.
    pub fn unsettled(&self, of: impl Fn(&str) -> bool) -> u64 {
        self.sum(|unsettled| {
            let channels = unsettled.channels();
            channels.values().flat_map(|channel| channel.deliveries.values()).filter(|queue| of(queue)).count() as u64
        })
    }

    /// Tells the client on its latest connection that the broker takes no messages for now, or takes them again; false if
    /// there is no connection.
    pub fn block(&self, blocked: bool) -> bool {
        let reason = if blocked { amqp::short(b"low") } else { Vec::new() };
        self.inject(amqp::call(0, 10, if blocked { 60 } else { 61 }, &reason))
    }
}

fn short(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes[1..].split_at(usize::from(bytes[0]))
}

fn long(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}
