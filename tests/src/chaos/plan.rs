//! Which messages are sent, in which order.

use super::messages::{Add, AddOwn, Flaky, Half, Happened, Poison, Remind, Step};
use sagabus::{Bus, Message, MessageId, SendOptions};
use serde_json::{Value, json};

/// What a log line says about a message, and the message.
pub struct Planned {
    pub log: Value,
    event: bool,
    /// It is sent once more, under the same id.
    pub again: bool,
    message: Kind,
}

enum Kind {
    Add(Add),
    AddOwn(AddOwn),
    Happened(Happened),
    Half(Half),
    Remind(Remind),
    Flaky(Flaky),
    Poison(Poison),
    Step(Step),
}

/// Ten kinds in turn, so that any twenty messages have two of each.
pub fn plan(n: u64, keys: u64, lanes: u64) -> Planned {
    let key = format!("k{}", n % keys);
    let round = n / 10;
    let (name, message) = match n % 10 {
        0 => ("add", Kind::Add(Add { key: key.clone(), n })),
        1 => (
            "step",
            Kind::Step(Step { key: format!("s{}", round % lanes), n, fails: u32::from(round.is_multiple_of(3)) }),
        ),
        2 => ("own", Kind::AddOwn(AddOwn { key: key.clone(), n })),
        3 => ("happened", Kind::Happened(Happened { key: key.clone(), n })),
        4 => ("half", Kind::Half(Half { key: format!("p{round}"), n, left: true })),
        5 => ("remind", Kind::Remind(Remind { key: key.clone(), n, delay_ms: 40 + 30 * (round % 4) })),
        6 => ("flaky", Kind::Flaky(Flaky { n, fails: 1 + u32::from(round.is_multiple_of(2)) * 2 })),
        7 => ("poison", Kind::Poison(Poison { n })),
        8 => ("half", Kind::Half(Half { key: format!("p{round}"), n, left: false })),
        _ => ("step", Kind::Step(Step { key: format!("s{}", round % lanes), n, fails: 0 })),
    };
    let body = match &message {
        Kind::Add(m) => json!(m),
        Kind::AddOwn(m) => json!(m),
        Kind::Happened(m) => json!(m),
        Kind::Half(m) => json!(m),
        Kind::Remind(m) => json!(m),
        Kind::Flaky(m) => json!(m),
        Kind::Poison(m) => json!(m),
        Kind::Step(m) => json!(m),
    };
    let key = body.get("key").cloned().unwrap_or_else(|| "".into());
    Planned { log: json!({ "kind": name, "key": key }), event: name == "happened", again: n % 4 == 3, message }
}

impl Planned {
    /// Sends it under this id.
    pub async fn deliver(&self, bus: &Bus, id: MessageId) -> sagabus::ports::Result<()> {
        async fn one<M: Message + Clone>(
            bus: &Bus,
            m: &M,
            options: SendOptions,
            event: bool,
        ) -> sagabus::ports::Result<()> {
            match event {
                true => bus.publish_with(m.clone(), options).await,
                false => bus.send_with(m.clone(), options).await,
            }
            .map(drop)
        }
        let (options, event) = (SendOptions::new().id(id), self.event);
        match &self.message {
            Kind::Add(m) => one(bus, m, options, event).await,
            Kind::AddOwn(m) => one(bus, m, options, event).await,
            Kind::Happened(m) => one(bus, m, options, event).await,
            Kind::Half(m) => one(bus, m, options, event).await,
            Kind::Remind(m) => one(bus, m, options, event).await,
            Kind::Flaky(m) => one(bus, m, options, event).await,
            Kind::Poison(m) => one(bus, m, options, event).await,
            Kind::Step(m) => one(bus, m, options.key(&m.key), event).await,
        }
    }
}
