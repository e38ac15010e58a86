use super::{
    super::{
        sql::{self, Step},
        write_context::WriteContext,
    },
    dedup,
    sends::{dead_letter_unroutable, outbox_steps, queue_steps, queues_of},
};
use sagabus_core::{Outgoing, Owner, Result};

/// Records sends in a transaction that is open on `context`'s connection.
pub(crate) async fn enlist(
    context: &mut WriteContext<'_>,
    owner: &Owner,
    joined: bool,
    sends: &[Outgoing],
) -> Result<()> {
    let sends: Vec<&Outgoing> = sends.iter().collect();
    let steps = if joined {
        let mut routed = queues_of(context, &sends, |_| false).await?;
        dedup::drop_seen(context, &mut routed).await?;
        let mut steps: Vec<Step> = dedup::remember(context, &routed.rows)?.into_iter().flat_map(|(s, _)| s).collect();
        steps.extend(queue_steps(context, &routed.rows)?);
        let lost: Vec<&Outgoing> = routed.unknown.iter().filter_map(|index| sends.get(*index).copied()).collect();
        steps.extend(dead_letter_unroutable(context, owner, &lost)?);
        steps
    } else {
        outbox_steps(owner, &sends)?
    };
    sql::run_all(context.connection, steps, "record sends in sqlite", |_, _| true).await?;
    Ok(())
}
