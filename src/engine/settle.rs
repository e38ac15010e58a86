//! The end of a unit, and of its delivery.

use super::{DeliverySource, Engine, unit::UnitId};
use sagabus_core::{Receiver, Settle, Settlement, Token, crash};
use std::sync::Arc;
use tokio::sync::mpsc;

pub(super) fn returned(token: Token) -> Settlement {
    Settlement { token, settle: Settle::Return }
}

impl Engine {
    /// A unit is through: committed by us, or found to be already.
    pub(super) fn complete_unit(&mut self, id: UnitId, found_early: bool) {
        self.end_unit(id, false, found_early);
    }

    /// A unit is not done here: its delivery goes back to where it came from.
    pub(super) fn return_to_transport(&mut self, id: UnitId) {
        self.end_unit(id, true, false);
    }

    fn end_unit(&mut self, id: UnitId, returned: bool, found_early: bool) {
        let Some(unit) = self.units.remove(&id) else { return };
        if unit.owns_gate
            && let Some(key) = unit.gate_key()
        {
            self.gates.remove(&key);
        }
        if self.suspect == Some(id) {
            self.suspect = None;
        }
        if let Some(key) = &unit.lane {
            if let Some(lane) = self.lanes.get_mut(key) {
                lane.waiting.retain(|other| *other != id);
                if lane.running == Some(id) {
                    lane.running = None;
                }
            }
            self.wake_lane(key);
        }
        for follower in unit.followers {
            if !returned && !found_early {
                super::add(&self.shared.counters.duplicates, 1);
            }
            self.end_unit(follower, returned, found_early);
        }
        let Some(delivery) = self.deliveries.get_mut(&unit.delivery) else { return };
        delivery.remaining = delivery.remaining.saturating_sub(1);
        delivery.returned |= returned;
        if delivery.remaining == 0
            && let Some(delivery) = self.deliveries.remove(&unit.delivery)
        {
            self.end_delivery(&delivery);
        }
    }

    fn end_delivery(&mut self, delivery: &super::InFlight) {
        match delivery.source {
            DeliverySource::Due(gate) => self.due_settled.push(gate),
            DeliverySource::Transport(token) => {
                let settle = match (delivery.returned, delivery.row_is_gate) {
                    (true, _) => Settle::Return,
                    (false, true) => Settle::Committed,
                    (false, false) => Settle::Done,
                };
                self.settlements.push(Settlement { token, settle });
            }
        }
        if let Some(key) = &delivery.order_key {
            if self.draining {
                self.orders.remove(key);
            } else {
                self.next_in_order(key);
            }
        }
    }

    pub(super) fn flush_settlements(&mut self) {
        if !self.settlements.is_empty() {
            // the settler outlives the engine
            let _ = self.settle.send(std::mem::take(&mut self.settlements));
        }
        if !self.due_settled.is_empty() {
            let _ = self.due_done.send(std::mem::take(&mut self.due_settled));
        }
    }
}

/// Tells the transport what is settled, until the engine has ended and everything is told.
pub(crate) async fn settler(
    receiver: Arc<dyn Receiver>,
    mut settlements: mpsc::UnboundedReceiver<Vec<Settlement>>,
    runtime: sagabus_core::Runtime,
) {
    let mut waiting = Vec::new();
    while settlements.recv_many(&mut waiting, 64).await > 0 {
        let batch: Vec<Settlement> = waiting.drain(..).flatten().collect();
        crash::reach("settling");
        let mut tries = 0;
        while let Err(error) = receiver.settle(batch.clone()).await {
            // what cannot be settled comes again, and the gates know it; so a few tries are enough
            tries += 1;
            if tries > 5 || error.is_closed() {
                tracing::warn!(%error, messages = batch.len(), "settling failed; they will be delivered again");
                break;
            }
            runtime.sleep(std::time::Duration::from_millis(20 << tries)).await;
        }
        crash::reach("settled");
    }
}
