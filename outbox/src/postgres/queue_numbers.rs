//! The numbers of queues, remembered by name.

use super::{
    open::OpenSchema,
    sql::{Reader, Sql, Texts},
    text::escape,
};
use sagabus_core::{Destination, Outgoing, Result};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError},
};

/// The number of a queue that was looked up and does not exist.
pub(crate) const ABSENT_QUEUE: i32 = -1;

impl OpenSchema {
    /// Looks up the numbers of the queues that messages go to, unless they are known. A missing queue is [`ABSENT_QUEUE`].
    pub(crate) async fn resolve(&self, sends: impl Iterator<Item = &Outgoing> + Send) -> Result<()> {
        let unknown: HashSet<&str> = {
            let known = self.queues.read().unwrap_or_else(PoisonError::into_inner);
            let queue = |outgoing: &'_ Outgoing| matches!(&outgoing.to, Destination::Queue(name) if known.get(name.as_str()).is_none_or(|number| *number == ABSENT_QUEUE));
            sends.filter(|outgoing| queue(outgoing)).map(|outgoing| outgoing.to.name()).collect()
        };
        if unknown.is_empty() {
            return Ok(());
        }
        let names: Texts<'_> = unknown.iter().copied().map(escape).collect();
        let sql = Sql::new(format!("select name,number from {}queue_name where name=any($1)", self.s)).with(names);
        let mut found: HashMap<Arc<str>, i32> = unknown.into_iter().map(|name| (name.into(), ABSENT_QUEUE)).collect();
        for row in self.read("look up queues", sql).await? {
            let mut row = Reader::new(&row);
            let (name, number) = (row.text()?, row.get()?);
            found.insert(name.into(), number);
        }
        self.queues.write().unwrap_or_else(PoisonError::into_inner).extend(found);
        Ok(())
    }

    /// Has the numbers of queues looked up again. Another commit may be between its look-up and its statement: what it does
    /// not find then is not known, which is not the same as absent.
    pub(super) fn forget_queues(&self) {
        self.queues.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
