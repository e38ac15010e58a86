//! The end of a unit, and of its delivery.

use super::{
    Engine, add,
    intake::{DeliverySource, InFlight},
    keys::UnitId,
};
use sagabus_core::{Backoff, Receiver, RowGate, Runtime, Settle, Settlement, Token, crash};
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// The settlements of a step, and the ways to the settler and to the reader of due rows.
pub(super) struct Settlements {
    settlements: Vec<Settlement>,
    due_rows: Vec<RowGate>,
    settler: mpsc::UnboundedSender<Vec<Settlement>>,
    due_reader: mpsc::UnboundedSender<Vec<RowGate>>,
}

impl Settlements {
    pub(super) fn new(
        settler: mpsc::UnboundedSender<Vec<Settlement>>,
        due_reader: mpsc::UnboundedSender<Vec<RowGate>>,
    ) -> Self {
        Self { settlements: Vec::new(), due_rows: Vec::new(), settler, due_reader }
    }

    pub(super) fn push(&mut self, settlement: Settlement) {
        self.settlements.push(settlement);
    }

    /// Settles a delivery all of whose units are through.
    fn settle(&mut self, delivery: &InFlight) {
        match delivery.source {
            DeliverySource::Due(gate) => self.due_rows.push(gate),
            DeliverySource::Transport(token) => {
                let settle = match (delivery.returned, delivery.row_is_gate) {
                    (true, _) => Settle::Return,
                    (false, true) => Settle::Committed,
                    (false, false) => Settle::Done,
                };
                self.settlements.push(Settlement { token, settle });
            }
        }
    }

    /// Hands on the settlements of the step.
    pub(super) fn flush(&mut self) {
        // the settler outlives the engine, and the reader of due rows needs none of them at its end
        if !self.settlements.is_empty() {
            let _ = self.settler.send(std::mem::take(&mut self.settlements));
        }
        if !self.due_rows.is_empty() {
            let _ = self.due_reader.send(std::mem::take(&mut self.due_rows));
        }
    }
}

/// The settlement of a delivery that goes back to the transport.
pub(super) fn returned(token: Token) -> Settlement {
    Settlement { token, settle: Settle::Return }
}

impl Engine {
    /// Ends a unit that is through: committed by this engine, or found to be already.
    pub(super) fn complete_unit(&mut self, id: UnitId, found_early: bool) {
        self.end_unit(id, false, found_early);
    }

    /// Ends a unit that is not done here: its delivery goes back to where it came from.
    pub(super) fn return_to_transport(&mut self, id: UnitId) {
        self.end_unit(id, true, false);
    }

    fn end_unit(&mut self, id: UnitId, returned: bool, found_early: bool) {
        let Some(unit) = self.remove_unit(id) else { return };
        if unit.guard.owns_gate
            && let Some(key) = unit.gate_key()
        {
            self.intake.release_gate(&key);
        }
        if self.suspects.current == Some(id) {
            self.suspects.current = None;
        }
        self.scheduler.wake(unit.saga.lane.as_ref());
        for follower in unit.guard.followers {
            if !returned && !found_early {
                add(&self.shared.counters.duplicates, 1);
            }
            self.end_unit(follower, returned, found_early);
        }
        let Some(delivery) = self.intake.deliveries.get_mut(&unit.delivery) else { return };
        delivery.remaining = delivery.remaining.saturating_sub(1);
        delivery.returned |= returned;
        if delivery.remaining == 0
            && let Some(delivery) = self.intake.deliveries.remove(&unit.delivery)
        {
            self.end_delivery(&delivery);
        }
    }

    fn end_delivery(&mut self, delivery: &InFlight) {
        self.settlements.settle(delivery);
        if let Some(key) = &delivery.order_key {
            if self.draining {
                self.intake.remove_order(key);
            } else if let Some(next) = self.intake.next_in_order(key) {
                self.admit_now(next);
            }
        }
    }
}

/// The pauses before settlements are told again, and the most times that they are.
const SETTLE_BACKOFF: Backoff = Backoff::new(Duration::from_millis(40), Duration::from_millis(640));
const MAX_SETTLE_RETRIES: u32 = 5;

/// Tells the transport the settlements, until the engine has ended and everything is told.
pub(crate) async fn settler(
    receiver: Arc<dyn Receiver>,
    mut settlements: mpsc::UnboundedReceiver<Vec<Settlement>>,
    runtime: Runtime,
) {
    let mut waiting = Vec::new();
    while settlements.recv_many(&mut waiting, 64).await > 0 {
        let batch: Vec<Settlement> = waiting.drain(..).flatten().collect();
        crash::reach("settling");
        let mut tries = 0u32;
        while let Err(error) = receiver.settle(batch.clone()).await {
            // what cannot be settled comes again, and the gates know it; so a few tries are enough
            if tries == MAX_SETTLE_RETRIES || error.is_closed() {
                tracing::warn!(%error, messages = batch.len(), "settling failed; they will be delivered again");
                break;
            }
            runtime.sleep(SETTLE_BACKOFF.pause(tries, &runtime)).await;
            tries += 1;
        }
        crash::reach("settled");
    }
}
