//! Random messages, of usual and of odd shapes.

use super::{ENDPOINTS, KEYS, KINDS, QUEUES, TOPICS, TYPES, kind};
use crate::rng::Rng;
use sagabus_core::{
    Destination, Envelope, Headers, InstanceId, Intent, MessageId, Outgoing, SagaAddress, TimerId, Timestamp,
    UserHeader,
};
use std::sync::Arc;
use uuid::Uuid;

const DAY: u64 = 86_400_000;

/// Makes messages and remembers the last ones, because a message that comes again is what stores are for.
pub(super) struct Messages {
    /// The first millisecond of the day on which ordinary ids are born.
    today: u64,
    made: u64,
    pub(super) recent: Vec<Arc<Envelope>>,
    /// Order keys are not for ever: one whose message is retried in some days stays blocked.
    pub(super) era: usize,
}

/// How many are remembered.
const RECENT: usize = 400;

impl Messages {
    pub(super) fn new(now: Timestamp) -> Self {
        let today = u64::try_from(now.0).unwrap_or(0) / 1000 / DAY * DAY;
        Self { today, made: 0, recent: Vec::new(), era: 0 }
    }

    fn uuid(&mut self, rng: &mut Rng, millis: u64) -> Uuid {
        self.made += 1;
        // unique by the counter, spread over the shards by the rest
        let random = rng.next_u64() >> 32 << 24 | self.made & 0xff_ffff;
        Uuid::from_u128(u128::from(millis) << 80 | 0x7 << 76 | 0b10 << 62 | u128::from(random))
    }

    pub(super) fn message_id(&mut self, rng: &mut Rng) -> MessageId {
        let millis = match rng.index(100) {
            0..3 => {
                self.made += 1;
                return MessageId::from_foreign(&format!("foreign-{}", self.made));
            }
            3..5 => self.today - 30 * DAY,
            5..7 => self.today - 9 * DAY,
            7..9 => self.today - 5 * DAY,
            9 => self.today + 4 * DAY,
            _ => self.today + self.made / 8,
        };
        MessageId(self.uuid(rng, millis))
    }

    pub(super) fn instance(&mut self, rng: &mut Rng) -> InstanceId {
        InstanceId(self.uuid(rng, self.today))
    }

    pub(super) fn timer_id(&mut self, rng: &mut Rng) -> TimerId {
        TimerId(self.uuid(rng, self.today))
    }

    pub(super) fn order_key(&self, rng: &mut Rng) -> String {
        format!("{}-{}", rng.choose(&["o", "O", "\u{0}", "ö"]), self.era * 4 + rng.index(4))
    }

    /// One that was not there before, and may come again.
    pub(super) fn fresh(&mut self, rng: &mut Rng) -> Arc<Envelope> {
        let message = Arc::new(self.unique(rng));
        if self.recent.len() < RECENT {
            self.recent.push(message.clone());
        } else {
            let place = rng.index(RECENT);
            self.recent[place] = message.clone();
        }
        message
    }

    /// One that was not there before, and will not come again.
    fn unique(&mut self, rng: &mut Rng) -> Envelope {
        let id = self.message_id(rng);
        let intent = rng.choose(&[Intent::Command, Intent::Event, Intent::Reply]);
        let mut headers = Headers::new(id, rng.choose(&TYPES), intent, Timestamp(1_000_000 + rng.index(1000) as i64));
        if rng.percent(35) {
            headers.order_key = Some(self.order_key(rng));
        }
        if rng.percent(15) {
            let instance = self.instance(rng);
            headers.saga = Some(address(rng, instance));
        }
        if rng.percent(15) {
            headers.correlation_id = Some(rng.choose(&KEYS).into());
            headers.reply_to = Some(rng.choose(&QUEUES).into());
            headers.causation_id = Some(id);
            headers.expires_at = Some(Timestamp(rng.index(1 << 40) as i64));
            headers.attempts = 3;
        }
        if rng.percent(10) {
            let value = format!("\"{}\\\u{0}", rng.choose(&KEYS));
            headers.user.insert("tenant".into(), UserHeader { value, propagate: rng.percent(50) });
            headers.content_type = "application/octet-stream".into();
        }
        let size = if rng.percent(2) { 5000 } else { 40 };
        let body: Vec<u8> = (0..rng.index(size)).map(|_| rng.next_u64() as u8).collect();
        Envelope::new(headers, body)
    }

    /// A new one, or now and then one that was there before.
    pub(super) fn any(&mut self, rng: &mut Rng, again: u64) -> Arc<Envelope> {
        if rng.percent(again) && !self.recent.is_empty() {
            return self.recent[rng.index(self.recent.len())].clone();
        }
        self.fresh(rng)
    }

    pub(super) fn outgoing(&mut self, rng: &mut Rng, new_id: bool) -> Outgoing {
        let to = match rng.index(100) {
            0..3 => Destination::Queue("nowhere".into()),
            3..35 => Destination::Topic(rng.choose(&TOPICS).into()),
            _ => Destination::Queue(rng.choose(&QUEUES[..3]).into()),
        };
        let message = if new_id { self.unique(rng) } else { (*self.any(rng, 8)).clone() };
        Outgoing { to, message }
    }

    /// A timeout of a life.
    pub(super) fn timeout(&mut self, rng: &mut Rng, saga: SagaAddress) -> Box<Envelope> {
        let mut message = (*self.fresh(rng)).clone();
        message.headers.intent = Intent::Timeout;
        message.headers.saga = Some(saga);
        Box::new(message)
    }
}

fn address(rng: &mut Rng, instance: InstanceId) -> SagaAddress {
    let kind = kind(rng.choose(&ENDPOINTS), rng.choose(&KINDS));
    SagaAddress { kind, key: rng.choose(&KEYS).into(), instance }
}
