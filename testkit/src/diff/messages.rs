//! Random messages, of usual and of odd shapes.

use super::{ENDPOINTS, KEYS, KINDS, QUEUES, TOPICS, TYPES, dice::Dice, kind};
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

    fn uuid(&mut self, dice: &mut Dice, millis: u64) -> Uuid {
        self.made += 1;
        // unique by the counter, spread over the shards by the rest
        let random = dice.bits() >> 32 << 24 | self.made & 0xff_ffff;
        Uuid::from_u128(u128::from(millis) << 80 | 0x7 << 76 | 0b10 << 62 | u128::from(random))
    }

    pub(super) fn message_id(&mut self, dice: &mut Dice) -> MessageId {
        let millis = match dice.below(100) {
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
        MessageId(self.uuid(dice, millis))
    }

    pub(super) fn instance(&mut self, dice: &mut Dice) -> InstanceId {
        InstanceId(self.uuid(dice, self.today))
    }

    pub(super) fn timer_id(&mut self, dice: &mut Dice) -> TimerId {
        TimerId(self.uuid(dice, self.today))
    }

    pub(super) fn order_key(&self, dice: &mut Dice) -> String {
        format!("{}-{}", dice.pick(&["o", "O", "\u{0}", "ö"]), self.era * 4 + dice.below(4))
    }

    /// One that was not there before, and may come again.
    pub(super) fn fresh(&mut self, dice: &mut Dice) -> Arc<Envelope> {
        let message = Arc::new(self.unique(dice));
        if self.recent.len() < RECENT {
            self.recent.push(message.clone());
        } else {
            let place = dice.below(RECENT);
            self.recent[place] = message.clone();
        }
        message
    }

    /// One that was not there before, and will not come again.
    fn unique(&mut self, dice: &mut Dice) -> Envelope {
        let id = self.message_id(dice);
        let intent = dice.pick(&[Intent::Command, Intent::Event, Intent::Reply]);
        let mut headers = Headers::new(id, dice.pick(&TYPES), intent, Timestamp(1_000_000 + dice.below(1000) as i64));
        if dice.percent(35) {
            headers.order_key = Some(self.order_key(dice));
        }
        if dice.percent(15) {
            let instance = self.instance(dice);
            headers.saga = Some(address(dice, instance));
        }
        if dice.percent(15) {
            headers.correlation_id = Some(dice.pick(&KEYS).into());
            headers.reply_to = Some(dice.pick(&QUEUES).into());
            headers.causation_id = Some(id);
            headers.expires_at = Some(Timestamp(dice.below(1 << 40) as i64));
            headers.attempts = 3;
        }
        if dice.percent(10) {
            let value = format!("\"{}\\\u{0}", dice.pick(&KEYS));
            headers.user.insert("tenant".into(), UserHeader { value, propagate: dice.percent(50) });
            headers.content_type = "application/octet-stream".into();
        }
        let size = if dice.percent(2) { 5000 } else { 40 };
        let body: Vec<u8> = (0..dice.below(size)).map(|_| dice.bits() as u8).collect();
        Envelope::new(headers, body)
    }

    /// A new one, or now and then one that was there before.
    pub(super) fn any(&mut self, dice: &mut Dice, again: usize) -> Arc<Envelope> {
        if dice.percent(again) && !self.recent.is_empty() {
            return self.recent[dice.below(self.recent.len())].clone();
        }
        self.fresh(dice)
    }

    pub(super) fn outgoing(&mut self, dice: &mut Dice, new_id: bool) -> Outgoing {
        let to = match dice.below(100) {
            0..3 => Destination::Queue("nowhere".into()),
            3..35 => Destination::Topic(dice.pick(&TOPICS).into()),
            _ => Destination::Queue(dice.pick(&QUEUES[..3]).into()),
        };
        let message = if new_id { self.unique(dice) } else { (*self.any(dice, 8)).clone() };
        Outgoing { to, message }
    }

    /// A timeout of a life.
    pub(super) fn timeout(&mut self, dice: &mut Dice, saga: SagaAddress) -> Box<Envelope> {
        let mut message = (*self.fresh(dice)).clone();
        message.headers.intent = Intent::Timeout;
        message.headers.saga = Some(saga);
        Box::new(message)
    }
}

fn address(dice: &mut Dice, instance: InstanceId) -> SagaAddress {
    let kind = kind(dice.pick(&ENDPOINTS), dice.pick(&KINDS));
    SagaAddress { kind, key: dice.pick(&KEYS).into(), instance }
}
