//! Admission of rows that have become due: timers, retries, parked messages, dead letters that are sent again.

use super::{
    Engine,
    admit::dead_letter,
    intake::{DeliverySource, InFlight},
    unit::{Predetermined, UnitTemplate},
};
use sagabus_core::{Destination, DueRow, Envelope, Gate, Headers, Intent, MessageId, Outgoing, RowTable, crash};
use std::sync::Arc;

impl Engine {
    /// A row that has become due: always for one handler, with the row as its gate.
    pub(super) fn admit_due(&mut self, row: DueRow) {
        if self.draining {
            return;
        }
        if row.gate.table == RowTable::Timer {
            crash::reach("timer-read");
        }
        let id = self.intake.next_id();
        self.intake.deliveries.insert(
            id,
            InFlight {
                source: DeliverySource::Due(row.gate),
                remaining: 1,
                row_is_gate: true,
                returned: false,
                order_key: None,
            },
        );
        let template = UnitTemplate {
            delivery: id,
            message: Arc::new(row.message),
            gate: Gate::Row(row.gate),
            fence: None,
            // an operator's retry begins anew
            attempts: if row.gate.table == RowTable::DeadLetter { 0 } else { row.attempts },
        };
        let route = self.shared.routes.find(&row.handler, &template.message.headers.message_type).cloned();
        let mut unit = template.unit(route.clone(), row.handler);
        unit.order.key = row.key;
        if let Some(route) = route {
            self.target(&mut unit, &route);
        } else if let (true, Some(to)) = (unit.handler.is_empty(), self.destination(&unit.message.headers)) {
            // it never reached a handler: an operator's retry sends it by today's routes
            let message = self.sent_again(&unit.message, &to);
            unit.predetermined = Some(Box::new(Predetermined::Send(Outgoing { to, message })));
        } else {
            let kind = &unit.message.headers.message_type;
            let text = format!("endpoint {} has no handler {:?} for {kind}", self.shared.info.name, unit.handler);
            let dead = dead_letter(&unit.message, "unknown message type", vec![text]);
            unit.predetermined = Some(Box::new(Predetermined::Dispose(dead)));
        }
        self.admit_unit(unit);
    }

    /// The destination of a message that reached no handler: here if there is one now, its owner, or its subscribers.
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

    /// A dead letter of this endpoint that comes to its queue once more gets a new id: under its old one the queue and the
    /// inbox have seen it, and would drop it. It was never handled under that, and its row is the gate of this.
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
}
