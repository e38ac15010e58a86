//! Attempts that are counted durably. What is to be counted while a statement is under way, or a few milliseconds after
//! it, goes into the next one, together: failures often come in crowds, and each commit costs everybody else's. A failure
//! by itself is counted at once.

use super::{
    attempt_queue::{Batch, Key},
    open::OpenSchema,
    sql::{NOW, Reader, Sql, Texts},
    text::escape,
};
use sagabus_core::{Error, ErrorKind, MessageId, Result, sabotage};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::oneshot;

/// The time between two statements, less than handlers wait before they try again.
const PAUSE_BETWEEN_STATEMENTS: Duration = Duration::from_millis(5);

/// The task that counts. Dropped before the end, as with the runtime that it runs on, it leaves no caller waiting.
struct Counting {
    inner: Arc<OpenSchema>,
    done: bool,
}

impl Drop for Counting {
    fn drop(&mut self) {
        if !self.done {
            self.inner.attempts.abandon();
        }
    }
}

impl OpenSchema {
    /// A caller who goes away disturbs nobody: the statement is not his.
    pub(super) async fn count_attempt(
        self: &Arc<Self>,
        endpoint: &str,
        handler: &str,
        message: MessageId,
    ) -> Result<u32> {
        let key = Key { message, handler: handler.into(), endpoint: endpoint.into() };
        if sabotage::active("attempts-in-memory") {
            return Ok(self.attempts.forget(key));
        }
        let (answer, counted) = oneshot::channel();
        if self.attempts.ask(key, answer) {
            self.runtime().spawn(serve(Counting { inner: self.clone(), done: false }));
        }
        let ended = || Error::new(ErrorKind::Unknown, "count an attempt: the task that counts has ended");
        counted.await.unwrap_or_else(|_| Err(ended()))
    }

    async fn count(&self, batch: &Batch) -> Result<HashMap<Key, u32>> {
        let messages: Vec<_> = batch.keys().map(|key| key.message.0).collect();
        let handlers: Texts<'_> = batch.keys().map(|key| escape(&key.handler)).collect();
        let endpoints: Texts<'_> = batch.keys().map(|key| escape(&key.endpoint)).collect();
        let sql = Sql::new(format!(
            "insert into {}attempt as t (message_id,handler,endpoint,attempts,at) select w.id,w.handler,w.endpoint,1, \
             {NOW} from unnest($1::uuid[],$2::text[],$3::text[]) w(id,handler,endpoint) on conflict \
             (message_id,handler,endpoint) do update set attempts=least(t.attempts,2147483646)+1,at=excluded.at \
             returning message_id,handler,endpoint,attempts",
            self.s
        ));
        let rows = self.write("count attempts", sql.with(messages).with(handlers).with(endpoints)).await?;
        let read = |row| {
            let mut row = Reader::new(row);
            let key = Key { message: row.message()?, handler: row.text()?, endpoint: row.text()? };
            Ok((key, row.count()?))
        };
        rows.iter().map(read).collect()
    }
}

async fn serve(mut counting: Counting) {
    while let Some(batch) = counting.inner.attempts.next() {
        let counts = counting.inner.count(&batch).await;
        for (key, answer) in batch {
            let missing = || Error::new(ErrorKind::Unknown, "count an attempt: postgres told no count");
            let count = counts.as_ref().map_err(Error::clone);
            // whoever asked may have gone
            let _ = answer.send(count.and_then(|counts| counts.get(&key).copied().ok_or_else(missing)));
        }
        counting.inner.runtime().sleep(PAUSE_BETWEEN_STATEMENTS).await;
    }
    counting.done = true;
}
