//! Admission: from a delivery to units.

use super::{
    Engine, add,
    handler_tasks::panic_text,
    intake::{DeliverySource, InFlight},
    keys::{LaneKey, UnitId},
    location::Location,
    settle::returned,
    unit::{Predetermined, Unit, UnitTemplate},
};
use crate::at_least_once;
use sagabus_core::{
    Delivery, Disposition, Effects, Envelope, Gate, HandlerError, Intent, Route, SagaLookup, Settle, Settlement, crash,
    sabotage,
};
use std::sync::Arc;

impl Engine {
    /// Admits a delivery, or keeps it behind an earlier one of its order key.
    pub(super) fn admit(&mut self, delivery: Delivery) {
        if self.draining {
            return self.settlements.push(returned(delivery.token));
        }
        add(&self.shared.counters.received, 1);
        if delivery.anonymous {
            self.count_without_id();
        }
        let delivery = match &delivery.message.headers.order_key {
            Some(key) if self.shared.ordered => self.intake.admit_in_order(key.clone(), delivery),
            _ => Some(delivery),
        };
        if let Some(delivery) = delivery {
            self.admit_now(delivery);
        }
    }

    /// A message without an id is handled at least once: nothing tells it from its redelivery.
    fn count_without_id(&mut self) {
        add(&self.shared.counters.without_id, 1);
        if let Some(messages) = self.intake.without_id.count(self.shared.info.runtime.elapsed()) {
            tracing::warn!(
                endpoint = %self.shared.info.name,
                messages,
                "messages without an id came; if one is delivered again, it is handled again"
            );
        }
    }

    /// Admits a delivery; none before it of its order key is in flight.
    pub(super) fn admit_now(&mut self, delivery: Delivery) {
        crash::reach("received");
        let shared = self.shared.clone();
        let message = delivery.message;
        let headers = &message.headers;
        let order_key = if shared.ordered { headers.order_key.clone() } else { None };
        let disposition = if let Some(defect) = delivery.defect {
            Some(dead_letter(&message, "undecodable", vec![defect]))
        } else if let Err(error) = message.check(&shared.info.limits) {
            Some(dead_letter(&message, "over the limits", vec![error.to_string()]))
        } else if headers.expires_at.is_some_and(|at| at <= shared.info.runtime.now()) {
            Some(Disposition::Dropped { policy: "expired" })
        } else if headers.intent == Intent::Timeout {
            let text = "a timeout comes from its timer, never over the transport";
            Some(dead_letter(&message, "not a timer's", vec![text.into()]))
        } else {
            None
        };
        let retried = if shared.at_least_once { at_least_once::intended_handler(headers) } else { None };
        let routes: &[Arc<dyn Route>] = match (&disposition, retried) {
            (Some(_), _) => &[],
            (None, None) => shared.routes.of(headers),
            (None, Some(handler)) => {
                shared.routes.find(handler, &headers.message_type).map_or(&[], std::slice::from_ref)
            }
        };
        let disposition = disposition.or_else(|| {
            let text = format!("endpoint {} has no handler for {}", shared.info.name, headers.message_type);
            routes.is_empty().then(|| dead_letter(&message, "unknown message type", vec![text]))
        });

        let count = if disposition.is_some() { 1 } else { routes.len() };
        let gate = match delivery.gate {
            Some(row) if shared.joined && count == 1 => Gate::Row(row),
            _ => Gate::Inbox,
        };
        let id = self.intake.next_id();
        self.intake.deliveries.insert(
            id,
            InFlight {
                source: DeliverySource::Transport(delivery.token),
                remaining: count,
                row_is_gate: matches!(gate, Gate::Row(_)),
                returned: false,
                order_key: order_key.clone(),
            },
        );
        if sabotage::active("settle-before-commit") {
            self.settlements.push(Settlement { token: delivery.token, settle: Settle::Done });
        }
        // a lease of another database cannot be compared in the unit's transaction; the inbox keeps the order there: a
        // process that lost its shard finds each message handled by the new owner, in the same order
        let fence = delivery.fence.filter(|_| shared.joined);
        let attempts = if shared.at_least_once { message.headers.attempts } else { 0 };
        let template = UnitTemplate { delivery: id, message, gate, fence, attempts };
        if let Some(disposition) = disposition {
            let mut unit = template.unit(None, "".into());
            unit.predetermined = Some(Box::new(Predetermined::Dispose(disposition)));
            return self.admit_unit(unit);
        }
        for (n, route) in routes.iter().enumerate() {
            let mut unit = template.unit(Some(route.clone()), route.handler().clone());
            unit.attempts.suspect = delivery.suspect;
            unit.order.waits_for_key = order_key.is_some();
            unit.order.key.clone_from(&order_key);
            self.target(&mut unit, route);
            if n > 0 && sabotage::active("second-saga-duplicate") {
                let unit_id = self.intake.next_id();
                self.units.insert(unit_id, unit);
                self.complete_unit(unit_id, false);
                continue;
            }
            self.admit_unit(unit);
        }
    }

    /// Decodes and correlates; a message that cannot be becomes a dead letter.
    pub(super) fn target(&self, unit: &mut Unit, route: &Arc<dyn Route>) {
        let decoded =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| route.target(&self.shared.info, &unit.message)))
                .unwrap_or_else(|panic| Err(HandlerError::permanent(panic_text(&*panic))));
        match decoded {
            Ok(target) => {
                unit.input = target.input;
                unit.saga.lookup = target.saga;
            }
            Err(error) => {
                unit.predetermined = Some(Box::new(Predetermined::Dispose(Disposition::DeadLettered {
                    message: unit.message.clone(),
                    attempts: unit.attempts.total,
                    reason: "undecodable".into(),
                    detail: error.chain(),
                })));
            }
        }
    }

    /// Takes a unit into the engine, and to its first place.
    pub(super) fn admit_unit(&mut self, mut unit: Box<Unit>) {
        let id = self.intake.next_id();
        let first = match unit.gate_key() {
            None => None,
            Some(key) => self.intake.take_gate(key, id).map_or_else(Some, |()| {
                unit.guard.owns_gate = true;
                None
            }),
        };
        let suspect = unit.attempts.suspect && unit.predetermined.is_none();
        self.units.insert(id, unit);
        match first {
            // the same message is in flight already: whatever becomes of it holds for this one too
            Some(first) => self.move_unit(id, Location::Following(first)),
            None if suspect => self.move_unit(id, Location::SuspectQueue),
            None => self.begin(id),
        }
    }

    /// Submits what was decided before any handler, as often as it takes.
    fn submit_predetermined(&mut self, id: UnitId, predetermined: Predetermined) {
        let outgoing = match predetermined {
            Predetermined::Dispose(disposition) => return self.dispose(id, disposition),
            Predetermined::Send(outgoing) => outgoing,
        };
        let Some(unit) = self.units.get_mut(&id) else { return };
        let effects = Effects { sends: vec![outgoing], ..Effects::default() };
        let work = unit.handled(effects, !self.shared.joined && !self.shared.at_least_once);
        self.submit(id, work, None);
    }

    /// Finds out what a unit needs before it can run: a load, its lane, or nothing.
    pub(super) fn begin(&mut self, id: UnitId) {
        let Some(unit) = self.units.get(&id) else { return };
        if let Some(predetermined) = unit.predetermined.as_deref().cloned() {
            return self.submit_predetermined(id, predetermined);
        }
        let probed = !self.shared.at_least_once && self.loader.probes(unit, &self.shared.info.runtime);
        // an alias may be another instance's by now
        let alias = matches!(unit.saga.lookup, Some(SagaLookup::Alias { .. }));
        let needs_load = probed || unit.order.waits_for_key || alias;
        let key = match (&unit.saga.lane, &unit.saga.lookup) {
            (Some(lane), _) => Some(lane.clone()),
            (None, Some(SagaLookup::Key { kind, key })) => {
                Some(LaneKey { kind: kind.clone(), key: key.as_str().into() })
            }
            (None, Some(SagaLookup::Instance(at))) => {
                Some(LaneKey { kind: at.kind.as_str().into(), key: at.key.as_str().into() })
            }
            _ => None,
        };
        match (needs_load, key) {
            (false, Some(key)) => self.enter_lane(id, key),
            (false, None) if unit.saga.lookup.is_none() => self.move_unit(id, Location::Ready),
            _ => self.move_unit(id, Location::WaitingForLoad),
        }
    }
}

/// The disposition of a message that reached no handler.
pub(super) fn dead_letter(message: &Arc<Envelope>, reason: &str, detail: Vec<String>) -> Disposition {
    Disposition::DeadLettered { message: message.clone(), attempts: 0, reason: reason.into(), detail }
}
