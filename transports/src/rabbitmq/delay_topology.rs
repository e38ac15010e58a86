//! Delays on the broker, for those who have no store: a tree of 28 levels.
//!
//! Level n keeps for 2^n seconds what comes into its queue. A delay is written into the routing key, its 28 bits first, from
//! the highest on, and the destination behind them. The exchange of a level puts what has its bit into its queue, from which
//! it expires into the next exchange; the rest goes there at once. The last one hands out by destination. In one queue
//! everything waits equally long, so what is due is always at its head.
//!
//! Against the tree that this is taken from:
//! - what has no destination any more when it is due goes to a queue of its own, by the alternate exchange of each level,
//!   instead of being dropped there, or standing in the way of those behind it (what dead-letters at least once keeps what
//!   it cannot route, and stops at 32 of them). It is tried again while anybody who delays runs;
//! - the destination is bound under its whole name, so that no other one whose name ends alike gets a copy, and once per
//!   process instead of at each send;
//! - the levels are declared from the last one on, so that nothing enters a level that leads nowhere.

use super::{
    connection::LiveConnection,
    error::{code, failed},
    names::{Names, short},
    topology,
};
use lapin::{
    Channel, Confirmation, ExchangeKind,
    message::BasicGetMessage,
    options::{BasicAckOptions, BasicPublishOptions, ExchangeDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use sagabus_core::Result;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

const LEVELS: u32 = 28;

/// The longest delay: eight and a half years.
pub(super) const MAX_DELAY: Duration = Duration::from_secs((1 << LEVELS) - 1);

/// What has no destination is given to this many consumers before the broker drops it: RabbitMQ 4 would do so after 20.
const STRAY_DELIVERY_LIMIT: u32 = 1 << 30;

/// Most strays that are looked at in one go.
const MAX_STRAYS_PER_CHECK: u32 = 500;

/// What this process knows to be there.
#[derive(Default)]
pub(super) struct DelayTopology {
    /// Whether anything was delayed here.
    used: AtomicBool,
    state: tokio::sync::Mutex<DeclaredDelays>,
}

#[derive(Default)]
struct DeclaredDelays {
    declared: bool,
    /// The queues that it leads to.
    bound: BTreeSet<String>,
}

impl DelayTopology {
    /// Whether anything was delayed by this process.
    pub(super) fn used(&self) -> bool {
        self.used.load(Ordering::Acquire)
    }

    /// The tree is there, and leads to these queues; false for those that do not exist.
    pub(super) async fn ensure(
        &self,
        live: &LiveConnection,
        names: &Names,
        queues: &BTreeSet<&str>,
    ) -> Result<Vec<bool>> {
        self.used.store(true, Ordering::Release);
        let mut state = self.state.lock().await;
        if !state.declared {
            declare(live, names).await?;
            state.declared = true;
        }
        let mut found = Vec::with_capacity(queues.len());
        for queue in queues {
            let exists = state.bound.contains(*queue) || bind(live, names, queue).await?;
            if exists {
                state.bound.insert((*queue).to_string());
            }
            found.push(exists);
        }
        Ok(found)
    }

    /// Makes again what somebody may have removed.
    pub(super) async fn restore(&self, live: &LiveConnection, names: &Names) -> Result<()> {
        let mut state = self.state.lock().await;
        state.declared = false;
        declare(live, names).await?;
        state.declared = true;
        for queue in state.bound.clone() {
            if !bind(live, names, &queue).await? {
                tracing::warn!(queue, "a queue that delayed messages are for is gone");
                state.bound.remove(&queue);
            }
        }
        Ok(())
    }

    /// Sends on what had no destination when it was due, and has one again.
    pub(super) async fn resend_strays(&self, live: &LiveConnection, names: &Names) -> Result<()> {
        let queue = names.delay_strays();
        let Some(count @ 1..) = topology::waiting(live, &queue).await? else { return Ok(()) };
        let doing = || format!("send on what lies in {queue}");
        let channel = topology::open(live).await?;
        channel.confirm_select(Default::default()).await.map_err(|e| failed(doing(), e))?;
        let mut sent = 0;
        for _ in 0..count.min(MAX_STRAYS_PER_CHECK) {
            let got = channel.basic_get(short(&queue)?, Default::default()).await.map_err(|e| failed(doing(), e))?;
            let Some(stray) = got else { break };
            if resend(&channel, &stray).await.map_err(|e| failed(doing(), e))? {
                sent += 1;
                let tag = stray.delivery.delivery_tag;
                channel.basic_ack(tag, BasicAckOptions::default()).await.map_err(|e| failed(doing(), e))?;
            }
        }
        // what was not acknowledged goes back
        let _ = channel.close(200, "done".into()).await;
        tracing::warn!(queue = queue, count, sent, "delayed messages had no destination when they were due");
        Ok(())
    }
}

/// To its destination, if that is there.
async fn resend(channel: &Channel, stray: &BasicGetMessage) -> lapin::Result<bool> {
    let Some(queue) = destination(stray.delivery.routing_key.as_str()) else { return Ok(false) };
    let mut properties = stray.delivery.properties.clone();
    // how it got here is nobody's business; older brokers take it for their own record
    let kept = properties.headers().as_ref().map(|headers| {
        let all = headers.inner().iter().filter(|(name, _)| !super::headers::brokers_own(name.as_str()));
        all.map(|(name, value)| (name.clone(), value.clone())).collect::<BTreeMap<_, _>>()
    });
    if let Some(kept) = kept {
        properties = properties.with_headers(FieldTable::from(kept));
    }
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let publish = channel.basic_publish("".into(), queue.into(), options, &stray.delivery.data, properties);
    Ok(matches!(publish.await?.await?, Confirmation::Ack(None)))
}

/// Where to publish what is to come to this address so much later: a level, and the routing key.
pub(super) fn route(delay: Duration, address: &str) -> (u32, String) {
    let whole = delay.min(MAX_DELAY);
    // whole seconds, and never early
    let seconds = whole.as_secs() + u64::from(whole.subsec_nanos() > 0);
    let seconds = u32::try_from(seconds).unwrap_or(u32::MAX).clamp(1, (1 << LEVELS) - 1);
    let mut key = String::with_capacity(56 + address.len());
    for level in (0..LEVELS).rev() {
        key.push_str(if seconds >> level & 1 == 1 { "1." } else { "0." });
    }
    key.push_str(address);
    (seconds.ilog2(), key)
}

/// The address in a routing key of [`route`].
fn destination(key: &str) -> Option<&str> {
    key.splitn(LEVELS as usize + 1, '.').nth(LEVELS as usize)
}

/// A binding key of a level: whatever has this bit there.
fn bit(level: u32, bit: char) -> String {
    format!("{}{bit}.#", "*.".repeat((LEVELS - 1 - level) as usize))
}

async fn declare(live: &LiveConnection, names: &Names) -> Result<()> {
    let channel = topology::open(live).await?;
    let (strays, out) = (names.delay_strays(), names.delay_out());
    exchange(&channel, &strays, ExchangeKind::Fanout, None).await?;
    topology::declare_queue(&channel, &strays, vec![("x-delivery-limit", STRAY_DELIVERY_LIMIT.into())]).await?;
    bind_queue(&channel, &strays, &strays, "").await?;
    exchange(&channel, &out, ExchangeKind::Topic, Some(&strays)).await?;
    for level in 0..LEVELS {
        let (name, next) = (names.delay(level), if level == 0 { out.clone() } else { names.delay(level - 1) });
        exchange(&channel, &name, ExchangeKind::Topic, Some(&strays)).await?;
        let arguments: Vec<(&str, Value)> = vec![
            ("x-message-ttl", (1000u64 << level).into()),
            // with its routing key, since none is set
            ("x-dead-letter-exchange", next.as_str().into()),
            ("x-dead-letter-strategy", "at-least-once".into()),
            ("x-overflow", "reject-publish".into()),
        ];
        topology::declare_queue(&channel, &name, arguments).await?;
        let doing = || format!("bind exchange {next} to {name}");
        channel
            .exchange_bind(
                short(&next)?,
                short(&name)?,
                short(bit(level, '0'))?,
                Default::default(),
                FieldTable::default(),
            )
            .await
            .map_err(|e| failed(doing(), e))?;
        bind_queue(&channel, &name, &name, &bit(level, '1')).await?;
    }
    topology::done(&channel).await;
    Ok(())
}

async fn exchange(channel: &Channel, name: &str, kind: ExchangeKind, otherwise: Option<&str>) -> Result<()> {
    let mut arguments = FieldTable::default();
    if let Some(otherwise) = otherwise {
        arguments.insert(short("alternate-exchange")?, AMQPValue::LongString(otherwise.into()));
    }
    let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
    let declared = channel.exchange_declare(short(name)?, kind, options, arguments).await;
    declared.map_err(|error| topology::conflict("exchange", name, error))
}

async fn bind_queue(channel: &Channel, queue: &str, exchange: &str, key: &str) -> Result<()> {
    let bound = channel
        .queue_bind(short(queue)?, short(exchange)?, short(key)?, Default::default(), FieldTable::default())
        .await;
    bound.map_err(|error| failed(format!("bind {queue} to {exchange}"), error))
}

/// Lets what is for this queue come to it; false if there is no such queue. On a channel of its own, which a no closes.
async fn bind(live: &LiveConnection, names: &Names, queue: &str) -> Result<bool> {
    let channel = topology::open(live).await?;
    let (name, out) = (names.queue(queue), names.delay_out());
    let key = format!("{}{name}", "*.".repeat(LEVELS as usize));
    let bound =
        channel.queue_bind(short(&name)?, short(&out)?, short(&key)?, Default::default(), FieldTable::default()).await;
    match bound {
        Ok(()) => {
            topology::done(&channel).await;
            Ok(true)
        }
        Err(error) if code(&error) == Some(404) => Ok(false),
        Err(error) => Err(failed(format!("bind {name} to {out}"), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(key: &str) -> u64 {
        key.split('.').take(28).fold(0, |sum, bit| sum * 2 + u64::from(bit == "1"))
    }

    #[test]
    fn a_delay_is_never_shorter_than_asked() {
        for (millis, wanted, level) in [(1, 1, 0), (1000, 1, 0), (1001, 2, 1), (5000, 5, 2), (86_400_000, 86_400, 16)] {
            let (at, key) = route(Duration::from_millis(millis), "shop");
            assert_eq!((seconds(&key), at), (wanted, level), "{millis} ms");
        }
        let (at, key) = route(MAX_DELAY, "shop");
        assert_eq!((seconds(&key), at), ((1 << 28) - 1, 27));
        assert_eq!(seconds(&route(Duration::MAX, "shop").1), (1 << 28) - 1);
    }

    #[test]
    fn the_longest_names_fit_and_come_out_again() {
        let names = Names { prefix: "p".repeat(63) + "." };
        let queue = names.queue(&format!("a.b.{}", "q".repeat(124)));
        let (_, key) = route(Duration::from_secs(12), &queue);
        assert!(short(&key).is_ok());
        assert_eq!(destination(&key), Some(queue.as_str()));
    }

    #[test]
    fn a_level_looks_at_its_bit_only() {
        assert_eq!((bit(27, '1'), bit(25, '0')), ("1.#".to_string(), "*.*.0.#".to_string()));
        assert_eq!(bit(0, '1').matches("*.").count(), 27);
    }
}
