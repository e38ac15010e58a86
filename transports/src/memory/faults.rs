//! What goes wrong, by chance or by script.

use sagabus_core::Runtime;
use std::{collections::VecDeque, time::Duration};

/// How often a broker misbehaves, in thousandths of all messages. Every choice comes from the runtime's seed.
///
/// All of it is what real brokers do. Messages with an order key are never reordered or delayed; a duplicate of one
/// follows it at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryFaults {
    /// The send is refused: nothing was done, the outcome is Retry.
    pub refuse: u16,
    /// The message is lost before it arrives: the outcome is Unknown.
    pub lose: u16,
    /// The message arrives, the confirm is lost: the outcome is Unknown.
    pub lose_confirm: u16,
    /// The message arrives twice.
    pub duplicate: u16,
    /// The message arrives late, by up to `max_delay`; later ones overtake it.
    pub delay: u16,
    /// See `delay`.
    pub max_delay: Duration,
    /// The message is handed out a second time while the first is still being handled.
    pub redeliver: u16,
}

impl MemoryFaults {
    /// Some of everything.
    pub fn rough() -> Self {
        Self {
            refuse: 20,
            lose: 10,
            lose_confirm: 20,
            duplicate: 30,
            delay: 50,
            max_delay: Duration::from_millis(200),
            redeliver: 30,
        }
    }
}

/// What becomes of one send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendFault {
    /// Not done; Retry.
    Refuse,
    /// Not done; Unknown.
    Lose,
    /// Done; Unknown.
    LoseConfirm,
    /// Done twice.
    Duplicate,
    /// Done, to be handed out so much later.
    Delay(Duration),
}

/// What becomes of one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryFault {
    /// The same message is handed out again at once.
    Redeliver,
}

/// The faults to come: scripted ones first, then by chance.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) chance: MemoryFaults,
    pub(super) sends: VecDeque<Option<SendFault>>,
    pub(super) deliveries: VecDeque<Option<DeliveryFault>>,
}

impl Faults {
    pub(super) fn send(&mut self, runtime: &Runtime, ordered: bool) -> Option<SendFault> {
        if let Some(scripted) = self.sends.pop_front() {
            return scripted;
        }
        let chance = self.chance;
        let faults = [
            (chance.refuse, SendFault::Refuse),
            (chance.lose, SendFault::Lose),
            (chance.lose_confirm, SendFault::LoseConfirm),
            (chance.duplicate, SendFault::Duplicate),
            (if ordered { 0 } else { chance.delay }, SendFault::Delay(Duration::ZERO)),
        ];
        if faults.iter().all(|(thousandths, _)| *thousandths == 0) {
            return None;
        }
        let mut dice = runtime.random() % 1000;
        for (thousandths, fault) in faults {
            match dice.checked_sub(u64::from(thousandths)) {
                Some(rest) => dice = rest,
                None if matches!(fault, SendFault::Delay(_)) => {
                    return Some(SendFault::Delay(runtime.jitter(chance.max_delay)));
                }
                None => return Some(fault),
            }
        }
        None
    }

    pub(super) fn delivery(&mut self, runtime: &Runtime) -> Option<DeliveryFault> {
        if let Some(scripted) = self.deliveries.pop_front() {
            return scripted;
        }
        let thousandths = u64::from(self.chance.redeliver);
        (thousandths > 0 && runtime.random() % 1000 < thousandths).then_some(DeliveryFault::Redeliver)
    }
}
