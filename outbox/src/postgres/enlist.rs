//! Sends that are recorded in a caller's own transaction.

use super::{commit::bell_of, error::failed, open::Inner};
use sagabus_core::{Outgoing, Owner, Result};
use sqlx::PgConnection;
use std::collections::HashSet;

impl Inner {
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
            // too early, for nobody knows when the caller commits: a hint all the same
            let bells: HashSet<_> = sends.iter().map(bell_of).collect();
            bells.iter().for_each(|place| self.bells.ring(place));
            self.notifier.mark(&bells);
        }
        Ok(())
    }
}
