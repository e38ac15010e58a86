//! Sends that are recorded in a caller's own transaction.

use super::{commit::wake_key_of, error::failed, open::OpenSchema};
use sagabus_core::{Outgoing, Owner, Result};
use sqlx::PgConnection;
use std::collections::HashSet;

impl OpenSchema {
    pub(crate) async fn enlist(
        &self,
        connection: &mut PgConnection,
        owner: &Owner,
        joined: bool,
        sends: &[Outgoing],
    ) -> Result<()> {
        let Some(sql) = self.record(owner, joined, sends).await? else { return Ok(()) };
        sql.run_on(connection).await.map_err(|error| failed("record sends in a transaction", error))?;
        if joined {
            // too early, since the caller commits later: a hint all the same
            let woken: HashSet<_> = sends.iter().map(wake_key_of).collect();
            self.announce(&woken);
        }
        Ok(())
    }
}
