use super::{model::Model, rows::More};
use sagabus_core::{LoadReply, LoadRequest, RowTable, SagaLookup, SagaRow, sabotage};

impl Model {
    pub(super) fn load(&self, request: &LoadRequest) -> LoadReply {
        let endpoint = &request.endpoint;
        let handled = |(handler, message): &(std::sync::Arc<str>, _)| {
            !sabotage::active("skip-inbox-check")
                && self.inbox.contains_key(&(endpoint.clone(), handler.clone(), *message))
        };
        LoadReply {
            probes: request.probes.iter().map(handled).collect(),
            sagas: request.sagas.iter().map(|lookup| self.find(lookup)).collect(),
            blocked_keys: request
                .blocked_keys
                .iter()
                .map(|(handler, key)| self.is_blocked(endpoint, handler, key))
                .collect(),
        }
    }

    fn find(&self, lookup: &SagaLookup) -> Option<SagaRow> {
        let row = |kind: &str, key: &str| self.saga_entry(kind, key).map(|entry| entry.row.clone());
        match lookup {
            SagaLookup::Key { kind, key } => row(kind, key),
            SagaLookup::Alias { kind, alias, value } => {
                let entry = self.aliases.get(&(kind.to_string(), alias.clone(), value.clone()))?;
                row(kind, &entry.key).filter(|row| row.instance == entry.instance)
            }
            SagaLookup::Instance(address) => {
                row(&address.kind, &address.key).filter(|row| row.instance == address.instance)
            }
        }
    }

    /// Whether a message of this key is being retried or parked, for this handler.
    fn is_blocked(&self, endpoint: &str, handler: &str, key: &str) -> bool {
        let tables = [RowTable::Retry, RowTable::Parked].into_iter().filter_map(|table| self.due.get(&table));
        tables.flat_map(|rows| rows.values()).any(|row| {
            *row.endpoint == *endpoint
                && *row.handler == *handler
                && row.key.as_deref() == Some(key)
                && matches!(row.more, More::Retry | More::ParkedForKey)
        })
    }
}
