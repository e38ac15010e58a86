//! Attempts that are counted durably.

use super::{
    open::OpenFile,
    sql::{self, Step},
};
use sagabus_core::{MessageId, Result, sabotage};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

const COUNT: &str = "insert into attempt(endpoint,handler,message_id,attempts,at) values (?,?,?,1,?) \
                     on conflict do update set attempts=attempts+1,at=excluded.at returning attempts";

impl OpenFile {
    pub(crate) async fn count_attempt(&self, endpoint: &str, handler: &str, message: MessageId) -> Result<u32> {
        if sabotage::active("attempts-in-memory") {
            return Ok(forgetful(message));
        }
        let (endpoint, handler): (Arc<str>, Arc<str>) = (Arc::from(endpoint), Arc::from(handler));
        self.write(move |tx| {
            let (endpoint, handler) = (Arc::clone(&endpoint), Arc::clone(&handler));
            Box::pin(async move {
                let step = Step::with(COUNT, |args| {
                    args.shared(&endpoint);
                    args.shared(&handler);
                    args.id(message.0);
                    args.time(tx.now);
                });
                let rows = step.fetch(&mut tx.connection, "count an attempt in sqlite").await?;
                let attempts = rows.first().map_or(Ok(1), |row| sql::column::<i64>(row, 0))?;
                Ok(u32::try_from(attempts).unwrap_or(u32::MAX))
            })
        })
        .await
    }
}

/// The planted bug.
fn forgetful(message: MessageId) -> u32 {
    static COUNTS: OnceLock<Mutex<HashMap<MessageId, u32>>> = OnceLock::new();
    let mut counts = COUNTS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let count = counts.entry(message).or_default();
    *count += 1;
    *count
}
