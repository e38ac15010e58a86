//! Ordered endpoints.

use crate::bed::{Bed, Seen, eventually, start};
use sagabus::{SendOptions, prelude::*};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Mutex, time::Duration};

#[derive(Message, Serialize, Deserialize)]
#[message(name = "ordered.step")]
struct Step {
    key: String,
    n: u32,
    /// Fails until this run's gate is open.
    gate: Option<String>,
}

/// The gates that are open, by names that no other test has.
static OPEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

async fn step(m: Step, ctx: &mut Context) -> Result {
    if m.gate.is_some_and(|gate| !OPEN.lock().unwrap().contains(&gate)) {
        return Err(HandlerError::new("not yet"));
    }
    ctx.send(Seen(format!("{} {}", m.key, m.n)));
    Ok(())
}

async fn send(running: &sagabus::RunningEndpoint, key: &str, n: u32, gate: Option<&String>) {
    let message = Step { key: key.into(), n, gate: gate.cloned() };
    running.bus().send_with(message, SendOptions::new().key(key)).await.unwrap();
}

/// As many as a busy machine can need.
fn patient() -> Recoverability {
    Recoverability {
        immediate: 1,
        pause: Duration::from_millis(1),
        delays: vec![Duration::from_millis(20); 2000],
        slow_down_after: u32::MAX,
        ..Recoverability::default()
    }
}

async fn a_failing_message_blocks_its_key_and_no_other(bed: Bed) {
    let recorder = bed.recorder().await;
    let line = start(bed.endpoint("line").recoverability(patient()).ordered().on(step)).await;
    let gate = uuid::Uuid::now_v7().to_string();
    send(&line, "a", 1, Some(&gate)).await;
    for n in 2..=5 {
        send(&line, "a", n, None).await;
    }
    for n in 1..=5 {
        send(&line, "b", n, None).await;
    }
    eventually("b is through, and a's first has been deferred", || async {
        let seen = bed.seen();
        if seen.len() == 5 && line.stats().deferred > 1 { Ok(()) } else { Err(format!("{seen:?}, {:?}", line.stats())) }
    })
    .await;
    assert_eq!(bed.seen(), ["b 1", "b 2", "b 3", "b 4", "b 5"], "nothing of a");
    OPEN.lock().unwrap().insert(gate);
    bed.expect(&line, &["a 1", "a 2", "a 3", "a 4", "a 5", "b 1", "b 2", "b 3", "b 4", "b 5"]).await;
    assert_eq!((line.stats().handled, line.stats().dead), (10, 0), "{:?}", line.stats());
    line.stop().await.unwrap();
    recorder.stop().await.unwrap();
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "ordered.entry")]
struct Entry {
    key: String,
    n: u32,
    fails: u32,
}

/// Its state shows the order in which the messages took effect.
#[derive(Default, Serialize, Deserialize)]
struct Journal {
    entries: Vec<u32>,
}

impl Saga for Journal {
    const NAME: &'static str = "journal";
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Entry>(|m| m.key.clone());
    }
}

impl Handle<Entry> for Journal {
    async fn handle(&mut self, m: Entry, ctx: &mut SagaContext) -> Result {
        if ctx.attempts() < m.fails {
            return Err(HandlerError::new("not yet"));
        }
        self.entries.push(m.n);
        Ok(())
    }
}

async fn entries(running: &sagabus::RunningEndpoint, key: &str) -> Vec<u32> {
    let row = crate::bed::admin(running).saga("line/journal", key).await.unwrap();
    row.map(|row| serde_json::from_slice::<Journal>(&row.state).unwrap().entries).unwrap_or_default()
}

async fn messages_of_a_key_take_effect_in_their_order(bed: Bed) {
    let line = start(bed.endpoint("line").ordered().saga::<Journal>()).await;
    for n in 0..40 {
        for key in ["a", "b", "c"] {
            // now and then one fails: at once, and through a whole round
            let fails = if n % 13 == 5 { 3 } else { u32::from(n % 7 == 3) };
            let message = Entry { key: key.into(), n, fails };
            line.bus().send_with(message, SendOptions::new().key(key)).await.unwrap();
        }
    }
    for key in ["a", "b", "c"] {
        eventually("all of a key are there", || async {
            let entries = entries(&line, key).await;
            if entries.len() == 40 { Ok(()) } else { Err(format!("{key}: {entries:?}")) }
        })
        .await;
        assert_eq!(entries(&line, key).await, (0..40).collect::<Vec<_>>(), "{key}");
    }
    line.stop().await.unwrap();
}

/// A message that is buried no longer blocks.
async fn a_dead_letter_frees_its_key(bed: Bed) {
    let line = start(bed.endpoint("line").ordered().saga::<Journal>()).await;
    for (n, fails) in [(1, 0), (2, u32::MAX), (3, 0), (4, 0)] {
        let message = Entry { key: "a".into(), n, fails };
        line.bus().send_with(message, SendOptions::new().key("a")).await.unwrap();
    }
    bed.dead_letters(&line, "line", 1).await;
    eventually("the rest is there", || async {
        let entries = entries(&line, "a").await;
        if entries == [1, 3, 4] { Ok(()) } else { Err(format!("{entries:?}")) }
    })
    .await;
    line.stop().await.unwrap();
}

on_every_backend!(
    a_failing_message_blocks_its_key_and_no_other,
    messages_of_a_key_take_effect_in_their_order,
    a_dead_letter_frees_its_key,
);
