use super::{
    super::{
        sql::{self, Step},
        tx::Desk,
    },
    dedup,
    route::{bury_unroutable, outbox_steps, queue_steps, queues_of},
};
use sagabus_core::{Outgoing, Owner, Result};

/// Records sends in a transaction that is open on `desk`'s connection.
pub(crate) async fn enlist(desk: &mut Desk<'_>, owner: &Owner, joined: bool, sends: &[Outgoing]) -> Result<()> {
    let sends: Vec<&Outgoing> = sends.iter().collect();
    let steps = if joined {
        let mut routed = queues_of(desk, &sends, |_| false).await?;
        dedup::drop_seen(desk, &mut routed).await?;
        let mut steps: Vec<Step> = dedup::remember(desk, &routed.rows)?.into_iter().flat_map(|(s, _)| s).collect();
        steps.extend(queue_steps(desk, &routed.rows)?);
        let lost: Vec<&Outgoing> = routed.unknown.iter().filter_map(|place| sends.get(*place).copied()).collect();
        steps.extend(bury_unroutable(desk, owner, &lost)?);
        steps
    } else {
        outbox_steps(owner, &sends)?
    };
    sql::run_all(desk.connection, steps, "record sends in sqlite", |_, _| true).await?;
    Ok(())
}
