//! Ordered endpoints.

use crate::bed::{Bed, Seen, eventually, start};
use sagabus::{SendOptions, prelude::*};
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
#[message(name = "ordered.step")]
struct Step {
    key: String,
    n: u32,
    fails: u32,
}

async fn step(m: Step, ctx: &mut Context) -> Result {
    if ctx.attempts() < m.fails {
        return Err(HandlerError::new("not yet"));
    }
    ctx.send_with(Seen(format!("{} {}", m.key, m.n)), SendOptions::new().key(&m.key));
    Ok(())
}

fn of(seen: &[String], key: &str) -> Vec<String> {
    seen.iter().filter(|text| text.starts_with(key)).cloned().collect()
}

async fn send(running: &sagabus::Running, key: &str, n: u32, fails: u32) {
    let message = Step { key: key.into(), n, fails };
    running.bus().send_with(message, SendOptions::new().key(key)).await.unwrap();
}

/// The recorder keeps order too, or it would prove nothing.
async fn a_failing_message_blocks_its_key_and_no_other(bed: Bed) {
    let line = start(bed.endpoint("line").ordered().on(step)).await;
    // a's first fails through a whole round, so it is deferred while the rest comes
    send(&line, "a", 1, 3).await;
    for n in 2..=5 {
        send(&line, "a", n, 0).await;
    }
    for n in 1..=5 {
        send(&line, "b", n, 0).await;
    }
    let recorder = bed.recorder().await;
    eventually("everything came through", || async {
        let seen = bed.in_order();
        if seen.len() == 10 { Ok(()) } else { Err(format!("{seen:?}, {:?}", line.stats())) }
    })
    .await;
    bed.quiet(&line).await;
    let handled = line.stats();
    assert_eq!((handled.handled, handled.deferred, handled.dead), (10, 1, 0), "{handled:?}");
    assert_eq!(of(&bed.in_order(), "b").len(), 5);
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

async fn entries(running: &sagabus::Running, key: &str) -> Vec<u32> {
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
