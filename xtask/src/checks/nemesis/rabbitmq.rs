//! What is done to RabbitMQ.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use super::scene::Scene;
use super::{Nemesis, frames};

/// What its clients are given in the URL: a dead broker is noticed within two of these seconds.
pub const PARAMETERS: &str = "&heartbeat=2&confirm_timeout=4&connect_timeout=2&delivery_limit=8";
/// Longer than two heartbeats.
const FROZEN: Duration = Duration::from_secs(6);

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
    Nemesis { name: "invalid-utf8", strike: invalid_utf8 },
    Nemesis { name: "nested-tables", strike: nested_tables },
];

fn restart(scene: &mut Scene<'_>) -> Result<u64> {
    for _ in 0..2 {
        scene.work_goes_on()?;
        let broker = scene.broker()?;
        broker.signal(Signal::SIGTERM)?;
        broker.gone()?;
        broker.start()?;
    }
    Ok(2)
}

fn kill(scene: &mut Scene<'_>) -> Result<u64> {
    for _ in 0..3 {
        scene.work_goes_on()?;
        let broker = scene.broker()?;
        broker.signal(Signal::SIGKILL)?;
        broker.gone()?;
        broker.start()?;
    }
    Ok(3)
}

/// Every second. The broker does it by itself: starting its command line takes longer than that.
fn close_connections(scene: &mut Scene<'_>) -> Result<u64> {
    let rounds = 15;
    scene.broker()?.eval(&format!(
        "spawn(fun() -> [begin timer:sleep(1000), [rabbit_networking:close_connection(P, \"nemesis\") || \
         P <- rabbit_networking:connections()] end || _ <- lists:seq(1, {rounds})] end)."
    ))?;
    thread::sleep(Duration::from_secs(rounds + 1));
    Ok(rounds)
}

fn memory_alarm(scene: &mut Scene<'_>) -> Result<u64> {
    for _ in 0..4 {
        scene.work_goes_on()?;
        scene.broker()?.ctl(&["set_vm_memory_high_watermark", "0"])?;
        thread::sleep(Duration::from_secs(3));
        scene.broker()?.ctl(&["set_vm_memory_high_watermark", "0.4"])?;
    }
    Ok(4)
}

fn freeze(scene: &mut Scene<'_>) -> Result<u64> {
    for _ in 0..3 {
        scene.work_goes_on()?;
        let broker = scene.broker()?;
        broker.signal(Signal::SIGSTOP)?;
        thread::sleep(FROZEN);
        broker.signal(Signal::SIGCONT)?;
    }
    Ok(3)
}

/// What lies in a queue is gone with it, so they are deleted while they are empty, under consumers that wait; and at once
/// there is work again.
fn delete_queue(scene: &mut Scene<'_>) -> Result<u64> {
    let mut strikes = 0;
    for queue in ["chaos", "ledger", "line", "line.p00", "line.p03", "chaos"] {
        scene.work_goes_on()?;
        scene.pause()?;
        let name = scene.name(queue)?;
        let deleted = scene.broker()?.ctl(&["delete_queue", &name]);
        deleted.with_context(|| format!("delete the queue {name}"))?;
        scene.resume()?;
        strikes += 1;
    }
    Ok(strikes)
}

/// Under load: an exchange holds no messages.
fn delete_exchange(scene: &mut Scene<'_>) -> Result<u64> {
    let mut strikes = 0;
    for round in 0..3 {
        for exchange in ["sagabus.events", "sagabus.keyed", "sagabus.events.queues", "sagabus.keyed.queues"] {
            scene.work_goes_on()?;
            let name = scene.name(exchange)?;
            let resource = format!("{{resource, <<\"/\">>, exchange, <<\"{name}\">>}}");
            let said = scene.broker()?.eval(&format!("rabbit_exchange:delete({resource}, false, <<\"nemesis\">>)."))?;
            ensure!(said.trim() == "ok" || round > 0, "delete the exchange {name}: {said}");
            strikes += u64::from(said.trim() == "ok");
        }
    }
    Ok(strikes)
}

/// No harm to the broker, but one that clients have been known to do to each other: a message that nobody takes comes back
/// on the confirm of another one.
fn unroutable(scene: &mut Scene<'_>) -> Result<u64> {
    let (rounds, strays) = (4, 7);
    for round in 0..rounds {
        scene.work_goes_on()?;
        scene.burst(round, strays)?;
    }
    Ok(rounds * strays)
}

fn lost_confirms(scene: &mut Scene<'_>) -> Result<u64> {
    for round in 0..4 {
        scene.work_goes_on()?;
        scene.proxy()?.swallow_confirms(true);
        // the odd ones end with the connection, the even ones with the patience of those who wait
        thread::sleep(Duration::from_secs(if round % 2 == 0 { 6 } else { 1 }));
        if round % 2 == 1 {
            scene.proxy()?.cut();
        }
        scene.proxy()?.swallow_confirms(false);
    }
    Ok(scene.proxy()?.swallowed())
}

fn lost_acks(scene: &mut Scene<'_>) -> Result<u64> {
    for _ in 0..6 {
        scene.work_goes_on()?;
        scene.proxy()?.swallow_acks(true);
        thread::sleep(Duration::from_secs(1));
        scene.proxy()?.cut();
        scene.proxy()?.swallow_acks(false);
    }
    Ok(scene.proxy()?.swallowed())
}

/// A property that no client may decode as text; lapin ends the connection each time it is delivered.
fn invalid_utf8(scene: &mut Scene<'_>) -> Result<u64> {
    hostile(scene, b"\xff\xfe", &[0, 0, 0, 0])
}

/// So deep that a recursive reader has no stack left, and the process ends.
fn nested_tables(scene: &mut Scene<'_>) -> Result<u64> {
    hostile(scene, b"kit.nested", &frames::nested(15_000))
}

/// Publishes two of them, and waits until they are set aside; processes that die are started again.
fn hostile(scene: &mut Scene<'_>, kind: &[u8], headers: &[u8]) -> Result<u64> {
    scene.work_goes_on()?;
    let (queue, aside) = (scene.name("chaos")?, scene.name("chaos.unreadable")?);
    let address = scene.direct()?.to_owned();
    for number in 0..2 {
        frames::publish(&address, &queue, kind, headers, &format!("hostile-{number}"))?;
    }
    for _ in 0..240 {
        let revived = scene.revive()?;
        if !revived && scene.broker()?.waiting(&aside)? == 2 {
            return Ok(2);
        }
        thread::sleep(Duration::from_millis(100));
    }
    bail!("the poison is not set aside: {} of 2", scene.broker()?.waiting(&aside)?)
}
