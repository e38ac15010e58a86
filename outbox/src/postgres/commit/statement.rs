//! A folded batch as one statement: everything, or a division by zero.
//!
//! Each part is there only if the batch has something for it, so that the usual batches have short plans; the counts that
//! say whether a gate was claimed or a saga was stale are compared in the end. All arrays are arguments, so a shape is
//! prepared once per connection.

use super::{
    super::{open::OpenSchema, sql::Sql},
    deliveries,
    draft::StatementBuilder,
    enqueue::{self, Queued},
    gates, sagas, sends,
};
use crate::fold::FoldedBatch;
use sagabus_core::{NodeId, OutboxId, Owner, Result};

/// How the sends of a batch are written down.
#[derive(Clone, Copy)]
pub(super) struct SendMode {
    pub(super) joined: bool,
    /// See [`StatementBuilder::repeats`].
    pub(super) repeats: bool,
}

/// The statement for a plan, and outbox rows that are done with. It answers (1, ids of outbox rows, blocked order keys).
pub(super) fn draft(
    inner: &OpenSchema,
    owner: &Owner,
    mode: SendMode,
    folded: &FoldedBatch<'_>,
    sent: &[OutboxId],
) -> Result<Option<Sql>> {
    let mut draft = StatementBuilder::new(inner, owner, mode.repeats);
    gates::write(&mut draft, folded);
    sagas::write(&mut draft, folded);
    deliveries::write(&mut draft, folded)?;
    let (ids, blocked) = sends::write(&mut draft, mode.joined, &folded.sends)?;
    if !sent.is_empty() {
        let sent = draft.sql.bind(sent.iter().map(|id| id.0).collect::<Vec<_>>());
        let outbox = draft.table("outbox");
        draft.part("sent", format!("delete from {outbox} where id=any({sent}::bigint[])"));
    }
    Ok(draft.finish(&ids, &blocked))
}

/// The statement that adds messages to queues, and nothing else.
pub(super) fn enqueue(inner: &OpenSchema, rows: &[Queued<'_>], repeats: bool) -> Result<Option<Sql>> {
    let no_owner = Owner { endpoint: "".into(), node: NodeId(uuid::Uuid::nil()) };
    let mut draft = StatementBuilder::new(inner, &no_owner, repeats);
    enqueue::write(&mut draft, rows)?;
    Ok(draft.finish("null", "null"))
}
