//! Retention: in chunks, so that a writer never waits for long.

use super::{open::OpenFile, sql::Step, write_context::Tx};
use sagabus_core::{Result, Timestamp};
use std::time::Duration;

/// Rows per transaction.
const ROWS_PER_TRANSACTION: i64 = 2000;
const DAY: i64 = 86_400_000_000;

/// What goes, before which number, and how many at most.
const STATEMENTS: &[(&str, Measure)] = &[
    (
        "delete from inbox where (day,endpoint,handler,message_id) in (select day,endpoint,handler,message_id from inbox \
         where day<? limit ?)",
        Measure::TwoHorizonsOldDay,
    ),
    (
        "delete from queue_dedup where (day,queue,message_id) in (select day,queue,message_id from queue_dedup where \
         day<? limit ?)",
        Measure::TwoHorizonsOldDay,
    ),
    (
        "delete from inbox_misc where (endpoint,handler,message_id) in (select endpoint,handler,message_id from \
         inbox_misc where at<? limit ?)",
        Measure::HorizonOld,
    ),
    (
        "delete from queue_dedup_misc where (queue,message_id) in (select queue,message_id from queue_dedup_misc where \
         at<? limit ?)",
        Measure::HorizonOld,
    ),
    (
        "delete from attempt where (endpoint,handler,message_id) in (select endpoint,handler,message_id from attempt \
         where at<? limit ?)",
        Measure::HorizonOld,
    ),
    (
        "delete from saga where (kind,key) in (select kind,key from saga where expires_at is not null and expires_at<=? \
         limit ?)",
        Measure::Now,
    ),
    // reply queues (an endpoint's name, `.replies.`, a node's id) whose process is gone, and what was sent there; the
    // names are few, and only they are gone through
    (
        "delete from queue where id in (select q.id from queue_name n cross join queue q on q.queue=n.name where \
         n.name glob '*.replies.????????-*-????????????' and not exists (select 1 from node l where \
         l.grp='queue:'||n.name and l.lease_until>=?) limit ?)",
        Measure::Now,
    ),
    (
        "delete from queue_name where name in (select n.name from queue_name n where \
         n.name glob '*.replies.????????-*-????????????' and not exists (select 1 from node l where \
         l.grp='queue:'||n.name and l.lease_until>=?) limit ?)",
        Measure::Now,
    ),
    // nodes that were taken for dead, and have not come back
    (
        "delete from node where (grp,node) in (select grp,node from node where gone and lease_until<? limit ?)",
        Measure::HorizonOld,
    ),
];

#[derive(Clone, Copy)]
enum Measure {
    /// The first day that is kept: a message is recognised for a horizon after it was handled, and may have been as old
    /// as the store's own horizon by then.
    TwoHorizonsOldDay,
    HorizonOld,
    Now,
}

impl Measure {
    fn limit(self, now: Timestamp, horizon: i64, own: i64) -> i64 {
        match self {
            Measure::TwoHorizonsOldDay => now.0.saturating_sub(horizon.saturating_add(own)).div_euclid(DAY),
            Measure::HorizonOld => now.0.saturating_sub(horizon),
            Measure::Now => now.0,
        }
    }
}

impl OpenFile {
    pub(crate) async fn prune(&self, horizon: Duration) -> Result<u64> {
        let horizon = i64::try_from(horizon.as_micros()).unwrap_or(i64::MAX);
        let mut deleted = 0;
        for (statement, measure) in STATEMENTS {
            loop {
                let chunk = self.write(move |tx| Box::pin(chunk(tx, statement, *measure, horizon))).await?;
                deleted += chunk;
                if chunk < ROWS_PER_TRANSACTION.unsigned_abs() {
                    break;
                }
            }
        }
        Ok(deleted)
    }
}

async fn chunk(tx: &mut Tx, statement: &'static str, measure: Measure, horizon: i64) -> Result<u64> {
    let own = i64::try_from(tx.shared.options.horizon.as_micros()).unwrap_or(i64::MAX);
    let step = Step::with(statement, |args| {
        args.int(measure.limit(tx.now, horizon, own));
        args.int(ROWS_PER_TRANSACTION);
    });
    Ok(step.run(&mut tx.connection, "prune sqlite").await?.changes)
}
