//! From a delivery to units.

use super::{
    DeliverySource, Engine, InFlight, Ready,
    unit::{Predetermined, Stage, Tally, Unit, UnitId},
};
use crate::at_least_once;
use sagabus_core::{
    Delivery, Destination, Disposition, DueRow, Effects, Envelope, Fence, Gate, HandlerError, Headers, Intent,
    MessageId, Outgoing, Route, RowTable, SagaLookup, crash, sabotage,
};
use std::{
    collections::{VecDeque, hash_map::Entry},
    sync::Arc,
};

impl Engine {
    pub(super) fn admit(&mut self, delivery: Delivery) {
        if self.draining {
            return self.settlements.push(super::settle::returned(delivery.token));
        }
        super::add(&self.shared.counters.received, 1);
        if self.shared.ordered
            && let Some(key) = &delivery.message.headers.order_key
        {
            if let Some(waiting) = self.orders.get_mut(key) {
                return waiting.push_back(delivery);
            }
            self.orders.insert(key.clone(), VecDeque::new());
        }
        self.admit_now(delivery);
    }

    /// Admits a delivery whose turn it is.
    pub(super) fn admit_now(&mut self, delivery: Delivery) {
        crash::reach("received");
        let shared = self.shared.clone();
        let message = delivery.message;
        let headers = &message.headers;
        let order_key = if shared.ordered { headers.order_key.clone() } else { None };
        let predetermined = if let Some(defect) = delivery.defect {
            Some(dead(&message, "undecodable", vec![defect]))
        } else if let Err(error) = message.check(&shared.info.limits) {
            Some(dead(&message, "over the limits", vec![error.to_string()]))
        } else if headers.expires_at.is_some_and(|at| at <= shared.info.runtime.now()) {
            Some(Disposition::Dropped { policy: "expired" })
        } else if headers.intent == Intent::Timeout {
            let text = "a timeout comes from its timer, never over the transport";
            Some(dead(&message, "not a timer's", vec![text.into()]))
        } else {
            None
        };
        let retried = if shared.at_least_once { at_least_once::intended_handler(headers) } else { None };
        let routes: &[Arc<dyn Route>] = match (&predetermined, retried) {
            (Some(_), _) => &[],
            (None, None) => shared.routes.of(headers),
            (None, Some(handler)) => {
                shared.routes.find(handler, &headers.message_type).map_or(&[], std::slice::from_ref)
            }
        };
        let predetermined = predetermined.or_else(|| {
            let text = format!("endpoint {} has no handler for {}", shared.info.name, headers.message_type);
            routes.is_empty().then(|| dead(&message, "unknown message type", vec![text]))
        });

        let count = if predetermined.is_some() { 1 } else { routes.len() };
        let gate = match delivery.gate {
            Some(row) if shared.joined && count == 1 => Gate::Row(row),
            _ => Gate::Inbox,
        };
        let id = self.id();
        self.deliveries.insert(
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
            self.settlements
                .push(sagabus_core::Settlement { token: delivery.token, settle: sagabus_core::Settle::Done });
        }
        // a lease of another database cannot be compared in the unit's transaction; the inbox keeps the order there: a
        // process that lost its shard finds each message handled by the new owner, in the same order
        let fence = delivery.fence.filter(|_| shared.joined);
        let attempts = if shared.at_least_once { message.headers.attempts } else { 0 };
        let origin = Origin { delivery: id, message, gate, fence, attempts };
        if let Some(predetermined) = predetermined {
            let mut unit = origin.unit(None, "".into());
            unit.predetermined = Some(Box::new(Predetermined::Dispose(predetermined)));
            return self.admit_unit(unit);
        }
        for (n, route) in routes.iter().enumerate() {
            let mut unit = origin.unit(Some(route.clone()), route.handler().clone());
            unit.suspect = delivery.suspect;
            unit.waits_for_key = order_key.is_some();
            unit.order_key.clone_from(&order_key);
            self.target(&mut unit, route);
            if n > 0 && sabotage::active("second-saga-duplicate") {
                let unit_id = self.id();
                self.units.insert(unit_id, unit);
                self.complete_unit(unit_id, false);
                continue;
            }
            self.admit_unit(unit);
        }
    }

    /// A row that has become due: always for one handler, with the row as its gate.
    pub(super) fn admit_due(&mut self, row: DueRow) {
        if self.draining {
            return;
        }
        if row.gate.table == RowTable::Timer {
            crash::reach("timer-read");
        }
        let id = self.id();
        self.deliveries.insert(
            id,
            InFlight {
                source: DeliverySource::Due(row.gate),
                remaining: 1,
                row_is_gate: true,
                returned: false,
                order_key: None,
            },
        );
        let origin = Origin {
            delivery: id,
            message: Arc::new(row.message),
            gate: Gate::Row(row.gate),
            fence: None,
            // an operator's retry begins anew
            attempts: if row.gate.table == RowTable::DeadLetter { 0 } else { row.attempts },
        };
        let route = self.shared.routes.find(&row.handler, &origin.message.headers.message_type).cloned();
        let mut unit = origin.unit(route.clone(), row.handler);
        unit.order_key = row.key;
        if let Some(route) = route {
            self.target(&mut unit, &route);
        } else if let (true, Some(to)) = (unit.handler.is_empty(), self.destination(&unit.message.headers)) {
            // it never reached a handler: an operator's retry sends it by today's routes
            let message = self.sent_again(&unit.message, &to);
            unit.predetermined = Some(Box::new(Predetermined::Send(Outgoing { to, message })));
        } else {
            let kind = &unit.message.headers.message_type;
            let text = format!("endpoint {} has no handler {:?} for {kind}", self.shared.info.name, unit.handler);
            let dead = dead(&unit.message, "unknown message type", vec![text]);
            unit.predetermined = Some(Box::new(Predetermined::Dispose(dead)));
        }
        self.admit_unit(unit);
    }

    /// Where a message goes that reached no handler: here if there is one now, to its owner, or to its subscribers.
    fn destination(&self, headers: &Headers) -> Option<Destination> {
        if !self.shared.routes.of(headers).is_empty() {
            return Some(Destination::Queue(self.shared.info.name.to_string()));
        }
        match headers.intent {
            Intent::Command => self.shared.info.owners.get(&headers.message_type).cloned().map(Destination::Queue),
            Intent::Event => Some(Destination::Topic(headers.message_type.clone())),
            Intent::Reply | Intent::Timeout => None,
        }
    }

    /// A message that was buried here and comes to this queue once more gets a new id: under its old one the queue and
    /// the inbox have seen it, and would drop it. It was never handled under that, and its row is the gate of this.
    fn sent_again(&self, message: &Envelope, to: &Destination) -> Envelope {
        let mut message = message.clone();
        if matches!(to, Destination::Queue(queue) if **queue == *self.shared.info.name) {
            let headers = &mut message.headers;
            // a reply still names the id that the sender knows
            headers.correlation_id.get_or_insert_with(|| headers.message_id.to_string());
            headers.message_id = MessageId(self.shared.info.runtime.uuid());
        }
        message
    }

    /// Decodes and correlates; a message that cannot be is buried.
    fn target(&self, unit: &mut Unit, route: &Arc<dyn Route>) {
        let decoded =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| route.target(&self.shared.info, &unit.message)))
                .unwrap_or_else(|panic| Err(HandlerError::permanent(super::handler_tasks::panic_text(&*panic))));
        match decoded {
            Ok(target) => {
                unit.input = target.input;
                unit.lookup = target.saga;
            }
            Err(error) => {
                unit.predetermined = Some(Box::new(Predetermined::Dispose(Disposition::DeadLettered {
                    message: unit.message.clone(),
                    attempts: unit.attempts,
                    reason: "undecodable".into(),
                    detail: error.chain(),
                })));
            }
        }
    }

    fn admit_unit(&mut self, mut unit: Box<Unit>) {
        let id = self.id();
        if let Some(key) = unit.gate_key() {
            match self.gates.entry(key) {
                Entry::Occupied(first) => {
                    // the same message is in flight already: whatever becomes of it holds for this one too
                    if let Some(first) = self.units.get_mut(first.get()) {
                        first.followers.push(id);
                    }
                    unit.stage = Stage::Waiting;
                    self.units.insert(id, unit);
                    return;
                }
                Entry::Vacant(place) => {
                    place.insert(id);
                    unit.owns_gate = true;
                }
            }
        }
        let suspect = unit.suspect && unit.predetermined.is_none();
        self.units.insert(id, unit);
        if suspect {
            return self.suspects.push_back(id);
        }
        self.begin(id);
    }

    /// What was decided before any handler goes to the committer, as often as it takes.
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
        let Some(unit) = self.units.get_mut(&id) else { return };
        unit.stage = Stage::Waiting;
        if let Some(predetermined) = unit.predetermined.as_deref().cloned() {
            return self.submit_predetermined(id, predetermined);
        }
        // the gate is what decides; asking for it beforehand only saves running the handler of a duplicate
        let known = unit.message.headers.first_attempt
            && !unit.suspect
            && self.shared.info.runtime.elapsed() >= self.probe_until;
        let probed = unit.gate == Gate::Inbox && !known && !self.shared.at_least_once;
        // an alias may be another life's by now
        let alias = matches!(unit.lookup, Some(SagaLookup::Alias { .. }));
        let simple = !probed && !unit.waits_for_key && !alias;
        let key = match (&unit.lane, &unit.lookup) {
            (Some(lane), _) => Some(lane.clone()),
            (None, Some(SagaLookup::Key { kind, key })) => {
                Some(super::LaneKey { kind: kind.clone(), key: key.as_str().into() })
            }
            (None, Some(SagaLookup::Instance(at))) => {
                Some(super::LaneKey { kind: at.kind.as_str().into(), key: at.key.as_str().into() })
            }
            _ => None,
        };
        match (simple, key) {
            (true, Some(key)) => {
                unit.lane = Some(key.clone());
                self.enter_lane(id, key);
            }
            (true, None) if unit.lookup.is_none() => self.ready.push_back(Ready::Plain(id)),
            _ => self.to_load.push(id),
        }
    }

    /// The next delivery of an order key, when the one before it is through.
    pub(super) fn next_in_order(&mut self, key: &str) {
        let Some(waiting) = self.orders.get_mut(key) else { return };
        match waiting.pop_front() {
            Some(delivery) => self.admit_now(delivery),
            None => {
                self.orders.remove(key);
            }
        }
    }
}

/// What the units of one delivery have in common.
struct Origin {
    delivery: u64,
    message: Arc<Envelope>,
    gate: Gate,
    fence: Option<Fence>,
    attempts: u32,
}

impl Origin {
    fn unit(&self, route: Option<Arc<dyn Route>>, handler: Arc<str>) -> Box<Unit> {
        Box::new(Unit {
            delivery: self.delivery,
            route,
            handler,
            message: self.message.clone(),
            message_id: self.message.headers.message_id,
            input: None,
            gate: self.gate,
            owns_gate: false,
            fence: self.fence.clone(),
            lookup: None,
            lane: None,
            order_key: None,
            waits_for_key: false,
            attempts: self.attempts,
            attempts_before: self.attempts,
            counted: false,
            dead_letter_postponed: false,
            suspect: false,
            predetermined: None,
            followers: Vec::new(),
            needs_committed_state: false,
            epoch: 0,
            sends: Vec::new(),
            tally: Tally::Handled,
            stage: Stage::Waiting,
            stale: 0,
        })
    }
}

fn dead(message: &Arc<Envelope>, reason: &str, detail: Vec<String>) -> Disposition {
    Disposition::DeadLettered { message: message.clone(), attempts: 0, reason: reason.into(), detail }
}
