//! What is done to RabbitMQ.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use sagabus_testkit::amqp;

use super::Nemesis;
use super::cluster_under_test::ClusterUnderTest;

/// Longer than two heartbeats.
const FROZEN: Duration = Duration::from_secs(6);

/// Those that a hostile client brings about.
pub const HOSTILE: &str = "invalid-utf8,nested-tables,endless-headers";

/// All of them.
pub const ALL: &[Nemesis] = &[
    Nemesis { name: "restart", strike: restart },
    Nemesis { name: "kill", strike: kill },
    Nemesis { name: "close-connections", strike: close_connections },
    Nemesis { name: "memory-alarm", strike: memory_alarm },
    Nemesis { name: "freeze", strike: freeze },
    Nemesis { name: "delete-queue", strike: delete_queue },
    Nemesis { name: "delete-exchange", strike: delete_exchange },
    Nemesis { name: "unroutable", strike: unroutable },
    Nemesis { name: "lost-confirms", strike: lost_confirms },
    Nemesis { name: "lost-acks", strike: lost_acks },
    Nemesis { name: "delays", strike: delays },
    Nemesis { name: "invalid-utf8", strike: invalid_utf8 },
    Nemesis { name: "nested-tables", strike: nested_tables },
    Nemesis { name: "endless-headers", strike: endless_headers },
];

fn restart(cluster: &mut ClusterUnderTest<'_>) -> Result<u64> {
    for _ in 0..2 {
        cluster.work_goes_on()?;
        let broker = cluster.broker()?;
        broker.signal(Signal::SIGTERM)?;
        broker.gone()?;
        broker.start()?;
    }
    Ok(2)
}

fn kill(cluster: &mut ClusterUnderTest<'_>) -> Result<u64> {
    for _ in 0..3 {
        cluster.work_goes_on()?;
        let broker = cluster.broker()?;
        broker.signal(Signal::SIGKILL)?;
        broker.gone()?;
        broker.start()?;
    }
    Ok(3)
}

/// Every second. The broker does it by itself: starting its command line takes longer than that.
fn close_connections(cluster: &mut ClusterUnderTest<'_>) -> Result<u64> {
    let rounds = 15;
    cluster.broker()?.eval(&format!(
        "spawn(fun() -> [begin timer:sleep(1000), [rabbit_networking:close_connection(P, \"nemesis\") || \
         P <- rabbit_networking:connections()] end || _ <- lists:seq(1, {rounds})] end)."
    ))?;
    thread::sleep(Duration::from_secs(rounds + 1));
    Ok(rounds)
}

fn memory_alarm(cluster: &mut ClusterUnderTest<'_>) -> Result<u64> {
    for _ in 0..4 {
        cluster.work_goes_on()?;
        cluster.broker()?.ctl(&["set_vm_memory_high_watermark", "0"])?;
        thread::sleep(Duration::from_secs(3));
        cluster.broker()?.ctl(&["set_vm_memory_high_watermark", "0.4"])?;
    }
    Ok(4)
}

fn freeze(cluster: &mut ClusterUnderTest<'_>) -> Result<u64> {
    for _ in 0..3 {
        cluster.work_goes_on()?;
        let broker = cluster.broker()?;
        broker.signal(Signal::SIGSTOP)?;
        thread::sleep(FROZEN);
        broker.signal(Signal::SIGCONT)?;
    }
    Ok(3)
}

/// What lies in a queue is gone with it, so they are deleted while they are empty, under consumers that wait; and at once
/// there is work again.
fn delete_queue(cluster: &mut ClusterUnderTest<'_>) -> Result<u64> {
    let mut strikes = 0;
    for queue in ["chaos", "ledger", "line", "line.p00", "line.p03", "chaos"] {
        cluster.work_goes_on()?;
        cluster.pause()?;
        let name = cluster.name(queue)?;
        let deleted = cluster.broker()?.ctl(&["delete_queue", &name]);
        deleted.with_context(|| format!("delete the queue {name}"))?;
        cluster.resume()?;
        strikes += 1;
    }
    Ok(strikes)
}

/// Under load: an exchange holds no messages.
fn delete_exchange(cluster: &mut ClusterUnderTest<'_>) -> Result<u64> {
    let mut strikes = 0;
    for round in 0..3 {
        for exchange in ["sagabus.events", "sagabus.keyed", "sagabus.events.queues", "sagabus.keyed.queues"] {
            cluster.work_goes_on()?;
            let name = cluster.name(exchange)?;
            let resource = format!("{{resource, <<\"/\">>, exchange, <<\"{name}\">>}}");
            let said =
                cluster.broker()?.eval(&format!("rabbit_exchange:delete({resource}, false, <<\"nemesis\">>)."))?;
            ensure!(said.trim() == "ok" || round > 0, "delete the exchange {name}: {said}");
            strikes += u64::from(said.trim() == "ok");
        }
    }
    Ok(strikes)
}

/// No harm to the broker, but one that clients have been known to do to each other: a message that nobody takes comes back
/// on the confirm of another one.
fn unroutable(cluster: &mut ClusterUnderTest<'_>) -> Result<u64> {
    let (rounds, strays) = (4, 7);
    for round in 0..rounds {
        cluster.work_goes_on()?;
        cluster.burst(round, strays)?;
    }
    Ok(rounds * strays)
}

fn lost_confirms(cluster: &mut ClusterUnderTest<'_>) -> Result<u64> {
    for round in 0..4 {
        cluster.work_goes_on()?;
        cluster.proxy()?.swallow_confirms(true);
        // the odd ones end with the connection, the even ones with the patience of those who wait
        thread::sleep(Duration::from_secs(if round % 2 == 0 { 6 } else { 1 }));
        if round % 2 == 1 {
            cluster.proxy()?.kill();
        }
        cluster.proxy()?.swallow_confirms(false);
    }
    Ok(cluster.proxy()?.swallowed())
}

fn lost_acks(cluster: &mut ClusterUnderTest<'_>) -> Result<u64> {
    for _ in 0..6 {
        cluster.work_goes_on()?;
        cluster.proxy()?.swallow_acks(true);
        thread::sleep(Duration::from_secs(1));
        cluster.proxy()?.kill();
        cluster.proxy()?.swallow_acks(false);
    }
    Ok(cluster.proxy()?.swallowed())
}

/// The broker is killed, and then restarted, while messages of an endpoint without a store wait in its levels.
fn delays(cluster: &mut ClusterUnderTest<'_>) -> Result<u64> {
    cluster.work_goes_on()?;
    cluster.later(|cluster| {
        for signal in [Signal::SIGKILL, Signal::SIGTERM] {
            cluster.work_goes_on()?;
            let broker = cluster.broker()?;
            broker.signal(signal)?;
            broker.gone()?;
            broker.start()?;
        }
        Ok(())
    })?;
    Ok(2)
}

/// A property that no client may decode as text; lapin by itself ends the connection each time it is delivered.
fn invalid_utf8(cluster: &mut ClusterUnderTest<'_>) -> Result<u64> {
    let plain = amqp::headers(&[]);
    let name = amqp::headers(&[(&b"\xc3\x28"[..], &b"t\x01"[..])]);
    hostile(cluster, &[(b"\xff\xfe", plain), (b"\xff", name)], "undecodable")
}

/// So deep that a recursive reader, as lapin by itself is, has no stack left, and the process ends.
fn nested_tables(cluster: &mut ClusterUnderTest<'_>) -> Result<u64> {
    let nested = [b'F', b'A'].map(|kind| (&b"kit.nested"[..], amqp::nested(kind, 15_000)));
    hostile(cluster, &nested, "unknown message type")
}

/// As many headers, and as long a one, as fit into a frame.
fn endless_headers(cluster: &mut ClusterUnderTest<'_>) -> Result<u64> {
    let names: Vec<String> = (0..10_000).map(|number| format!("h{number:04}")).collect();
    let many: Vec<(&[u8], &[u8])> = names.iter().map(|name| (name.as_bytes(), &b"t\x01"[..])).collect();
    let text = [&b"S"[..], &120_000u32.to_be_bytes(), &vec![b'x'; 120_000]].concat();
    let long = amqp::headers(&[(&b"long"[..], &text)]);
    hostile(cluster, &[(b"kit.endless", amqp::headers(&many)), (b"kit.endless", long)], "undecodable")
}

/// Publishes messages of these types and headers, and waits until they are dead letters. No process may end.
fn hostile(cluster: &mut ClusterUnderTest<'_>, poison: &[(&[u8], Vec<u8>)], reason: &str) -> Result<u64> {
    cluster.work_goes_on()?;
    let (queue, aside) = (cluster.name("chaos")?, cluster.name("chaos.unreadable")?);
    for (number, (kind, headers)) in poison.iter().enumerate() {
        cluster.proxied()?.publish(&queue, kind, headers, &format!("hostile-{number}"))?;
    }
    let letters = format!("from dead_letter where reason = '{reason}'");
    for _ in 0..240 {
        if cluster.store()?.number(&format!("select count(*) {letters}"))? == poison.len() as i64 {
            ensure!(cluster.broker()?.waiting(&aside)? == 0, "the poison lies in {aside}, too");
            // the judge knows nothing of it
            cluster.store()?.run(&format!("delete {letters}"))?;
            cluster.work_goes_on()?;
            return Ok(poison.len() as u64);
        }
        thread::sleep(Duration::from_millis(100));
    }
    bail!("the poison is not among the dead letters; {} lie in {aside}", cluster.broker()?.waiting(&aside)?)
}
