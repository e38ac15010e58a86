//! The handlers of an endpoint, by message type.

use sagabus_core::{Headers, Intent, Route};
use std::{collections::HashMap, sync::Arc};

/// Finds the handlers of a message.
#[derive(Default)]
pub(crate) struct RouteTable {
    /// What the transport may deliver.
    by_type: HashMap<String, Vec<Arc<dyn Route>>>,
    /// One handler of a type, timeouts included; a list of one, so that both are slices.
    by_handler: HashMap<(String, String), Vec<Arc<dyn Route>>>,
}

impl RouteTable {
    pub(crate) fn new(routes: Vec<Arc<dyn Route>>) -> Self {
        let mut table = Self::default();
        for route in routes {
            let (kind, handler) = (route.message_type().to_string(), route.handler().to_string());
            if !route.is_timeout() {
                table.by_type.entry(kind.clone()).or_default().push(route.clone());
            }
            table.by_handler.insert((handler, kind), vec![route]);
        }
        table
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_handler.is_empty()
    }

    /// The message types that the transport may deliver.
    pub(crate) fn message_types(&self) -> Vec<String> {
        let mut types: Vec<String> = self.by_type.keys().cloned().collect();
        types.sort();
        types
    }

    /// The handlers of a message. A reply to a saga is for that saga only.
    pub(crate) fn of(&self, headers: &Headers) -> &[Arc<dyn Route>] {
        if let (Intent::Reply, Some(saga)) = (headers.intent, &headers.saga) {
            let name = saga.kind.rsplit('/').next().unwrap_or_default();
            return self.slice(name, &headers.message_type);
        }
        self.by_type.get(&headers.message_type).map_or(&[], Vec::as_slice)
    }

    /// One handler of a message type.
    pub(crate) fn find(&self, handler: &str, message_type: &str) -> Option<&Arc<dyn Route>> {
        self.slice(handler, message_type).first()
    }

    fn slice(&self, handler: &str, message_type: &str) -> &[Arc<dyn Route>] {
        let key = (handler.to_string(), message_type.to_string());
        self.by_handler.get(&key).map_or(&[], Vec::as_slice)
    }
}
