//! What goes wrong, by chance or by script.

use sagabus_core::Runtime;
use std::{collections::VecDeque, time::Duration};

/// How often a broker misbehaves, in thousandths of all messages. Every choice comes from the runtime's seed.
///
/// All of it is what real brokers do. Messages with an order key are never reordered or delayed; a duplicate of one
/// follows it at once. The default is no fault at all.
///
/// ```
/// # use sagabus_core::Runtime;
/// # use sagabus_transports::memory::{BrokerFaults, MemoryBroker};
/// # use std::time::Duration;
/// let broker = MemoryBroker::new(Runtime::simulated(1));
/// broker.set_faults(BrokerFaults::new().duplicate(30).delay(50, Duration::from_millis(200)));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokerFaults {
    refuse: u16,
    lose: u16,
    lose_confirm: u16,
    duplicate: u16,
    delay: u16,
    max_delay: Duration,
    redeliver: u16,
}

impl BrokerFaults {
    /// No faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Some of everything.
    pub fn rough() -> Self {
        Self::new()
            .refuse(20)
            .lose(10)
            .lose_confirm(20)
            .duplicate(30)
            .delay(50, Duration::from_millis(200))
            .redeliver(30)
    }

    /// So many sends are refused: nothing is done, the outcome is Retry.
    #[must_use]
    pub fn refuse(mut self, thousandths: u16) -> Self {
        self.refuse = thousandths;
        self
    }

    /// So many messages are lost before they arrive: the outcome is Unknown.
    #[must_use]
    pub fn lose(mut self, thousandths: u16) -> Self {
        self.lose = thousandths;
        self
    }

    /// So many messages arrive, and their confirm is lost: the outcome is Unknown.
    #[must_use]
    pub fn lose_confirm(mut self, thousandths: u16) -> Self {
        self.lose_confirm = thousandths;
        self
    }

    /// So many messages arrive twice.
    #[must_use]
    pub fn duplicate(mut self, thousandths: u16) -> Self {
        self.duplicate = thousandths;
        self
    }

    /// So many messages arrive late, by up to `max_delay`; later ones overtake them.
    #[must_use]
    pub fn delay(mut self, thousandths: u16, max_delay: Duration) -> Self {
        self.delay = thousandths;
        self.max_delay = max_delay;
        self
    }

    /// So many messages are handed out a second time while the first is still being handled.
    #[must_use]
    pub fn redeliver(mut self, thousandths: u16) -> Self {
        self.redeliver = thousandths;
        self
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
pub(super) struct FaultScript {
    pub(super) chance: BrokerFaults,
    pub(super) sends: VecDeque<Option<SendFault>>,
    pub(super) deliveries: VecDeque<Option<DeliveryFault>>,
}

impl FaultScript {
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
