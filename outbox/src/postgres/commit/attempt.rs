//! A batch on its way from units to outcomes.

use super::{
    super::{
        error::{Fault, failed, fault, write_failed},
        open::OpenSchema,
        pool::Conn,
        sql::{self, Reader, Sql},
        text,
    },
    diagnose::{self, Conflicts},
    enqueue::wake_key_of,
    retry::{MAX_RETRIES, pause},
    statement::{self, SendMode},
};
use crate::wakeups::WakeKey;
use crate::{
    dedup::DedupSlot,
    fold::{Broken, FoldedBatch, fold},
};
use sagabus_core::{
    CommitBatch, CommitReply, Due, Error, ErrorKind, Gate, OutboxId, Outcome, Outgoing, Result, RowTable, crash,
    sabotage,
};
use sqlx::postgres::PgRow;
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

/// Readers of due rows poll at least this often: rows that are due later need no wake-up.
const READER_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// A batch on its way.
pub(in crate::postgres) struct CommitAttempt<'b> {
    inner: &'b OpenSchema,
    batch: &'b CommitBatch,
    slots: HashMap<usize, DedupSlot>,
    outcomes: Vec<Option<Outcome>>,
    /// (kind, key) of which a unit was not applied: the later ones of its chain are not either.
    broken: HashSet<(&'b str, &'b str)>,
    pub(super) cleaned: bool,
    /// A queue has taken one of the ids before: such are skipped from now on.
    pub(in crate::postgres) repeats: bool,
    woken: HashSet<WakeKey>,
}

impl<'b> CommitAttempt<'b> {
    pub(in crate::postgres) async fn new(inner: &'b OpenSchema, batch: &'b CommitBatch) -> Result<Self> {
        if batch.joined {
            inner.resolve(batch.units.iter().flat_map(|unit| &unit.sends)).await?;
        }
        let mut slots = HashMap::new();
        for (index, unit) in batch.units.iter().enumerate() {
            if unit.gate == Gate::Inbox {
                slots.insert(index, inner.dedup_slot(unit.message_id));
            }
        }
        Ok(Self {
            inner,
            batch,
            slots,
            outcomes: vec![None; batch.units.len()],
            broken: HashSet::new(),
            cleaned: batch.sent.is_empty(),
            repeats: false,
            woken: HashSet::new(),
        })
    }

    pub(in crate::postgres) fn reply(self) -> CommitReply {
        self.inner.announce(&self.woken);
        let missing = || Outcome::Failed(Error::new(ErrorKind::Transient, "the unit was not tried"));
        let outcomes = self.outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(missing)).collect();
        CommitReply { outcomes, cleaned: self.cleaned }
    }

    pub(in crate::postgres) fn end(&mut self, index: usize, outcome: Outcome) {
        if !outcome.is_applied()
            && let Some(write) = self.batch.units.get(index).and_then(|unit| unit.saga.as_ref())
        {
            self.broken.insert((&write.kind, &write.key));
        }
        if let Some(slot) = self.outcomes.get_mut(index) {
            *slot = Some(outcome);
        }
    }

    /// Applies units. An error names those that have no outcome yet.
    pub(super) async fn apply_all(&mut self, mut pending: Vec<usize>) -> Result<(), (Error, Vec<usize>)> {
        let mut conn = self.inner.work.take().await.map_err(|error| (error, pending.clone()))?;
        let (mut retries, mut one_by_one, mut diagnose) = (0, false, false);
        while !pending.is_empty() {
            if diagnose {
                let before = pending.len();
                pending = match self.diagnose(&mut conn, &pending).await {
                    Ok(left) => left,
                    Err(error) => return Err((error, pending)),
                };
                // nothing to be seen any more: another process has come and gone
                retries += u32::from(before == pending.len());
                one_by_one |= retries > 3;
                diagnose = false;
                continue;
            }
            let count = if one_by_one { 1 } else { pending.len() };
            let Ok(folded) = self.fold(&pending[..count]) else {
                diagnose = true;
                one_by_one |= retries > 3;
                retries += 1;
                if retries > MAX_RETRIES {
                    return Err((Error::invalid("a batch has a chain that does not build on itself"), pending));
                }
                continue;
            };
            let Err(error) = self.execute(&mut conn, &folded).await else {
                // what was taken stands first
                pending.drain(..folded.units.len());
                continue;
            };
            match fault(&error) {
                Fault::Conflict if retries < MAX_RETRIES => {
                    diagnose = true;
                    // perhaps it was a queue that is gone
                    if let Err(error) = self.resolve_queues_again().await {
                        return Err((error, pending));
                    }
                }
                Fault::Repeated if !self.repeats => self.repeats = true,
                Fault::Again if retries < MAX_RETRIES => {
                    retries += 1;
                    pause(self.inner.runtime(), retries).await;
                }
                Fault::NoPartition if retries < MAX_RETRIES => {
                    retries += 1;
                    if let Err(error) = self.inner.create_partitions(&mut conn).await {
                        return Err((error, pending));
                    }
                }
                Fault::Lost => {
                    let error = self.lost(error, &folded.units);
                    // the rest was not tried
                    pending.drain(..folded.units.len());
                    return error.map_err(|error| (error, pending));
                }
                Fault::Refused if pending.len() > 1 && !one_by_one => one_by_one = true,
                Fault::Refused => {
                    let error = failed("commit a unit to postgres", error);
                    self.end(pending.remove(0), Outcome::Failed(error));
                    diagnose = true;
                }
                _ => return Err((failed("commit to postgres", error), pending)),
            }
        }
        conn.release();
        Ok(())
    }

    pub(in crate::postgres) async fn resolve_queues_again(&self) -> Result<()> {
        if !self.batch.joined {
            return Ok(());
        }
        self.inner.forget_queues();
        self.inner.resolve(self.batch.units.iter().flat_map(|unit| &unit.sends)).await
    }

    /// The connection went while a statement was under way. The gates of its units tell what happened.
    fn lost(&mut self, error: sqlx::Error, units: &[usize]) -> Result<()> {
        if sabotage::active("commit-error-is-success") {
            for index in units {
                self.end(*index, Outcome::Applied { outbox: Vec::new(), blocked_by_predecessor: false });
            }
            return Ok(());
        }
        let error = write_failed("commit to postgres", error);
        for index in units {
            self.end(*index, Outcome::Failed(error.clone()));
        }
        Err(Error::new(ErrorKind::Transient, "the connection to postgres was lost before the unit was committed"))
    }

    /// Gives outcomes to units that are duplicates or stale, and returns the others.
    pub(in crate::postgres) async fn diagnose(&mut self, conn: &mut Conn, units: &[usize]) -> Result<Vec<usize>> {
        let query = diagnose::query(&self.inner.s, self.batch, units, &self.slots);
        let what = "find out why a commit failed";
        let rows = query.sql.clone().run(conn).await.map_err(|error| failed(what, error))?;
        let mut conflicts = Conflicts::read(&query, &rows)?;
        let mut left = Vec::new();
        for index in units {
            let Some(unit) = self.batch.units.get(*index) else { continue };
            match conflicts.outcome(*index, unit, &mut self.broken) {
                Some(outcome) => self.end(*index, outcome),
                None => left.push(*index),
            }
        }
        Ok(left)
    }

    fn fold(&self, units: &[usize]) -> Result<FoldedBatch<'b>, Broken> {
        let slot = |index, _: &_| self.slots.get(&index).copied().unwrap_or(DedupSlot::UNDATED);
        fold(self.batch, units, slot)
    }

    async fn execute(&mut self, conn: &mut Conn, folded: &FoldedBatch<'_>) -> Result<(), sqlx::Error> {
        let sent: &[OutboxId] = if self.cleaned { &[] } else { &self.batch.sent };
        let drafted = self.draft(conn, folded, sent).await?;
        let rows = match drafted {
            Some(sql) if cfg!(feature = "__crash") => {
                // the same in three steps, so that there is a moment between the effects and the commit
                sql::script(conn, "begin".into()).await?;
                let rows = sql.run(conn).await;
                if rows.is_ok() {
                    crash::reach("commit-applied");
                }
                sql::script(conn, if rows.is_ok() { "commit" } else { "rollback" }.into()).await?;
                rows?
            }
            Some(sql) => sql.run(conn).await?,
            None => Vec::new(),
        };
        crash::reach("commit-returned");
        if !self.cleaned {
            self.cleaned = true;
            crash::reach("outbox-deleted");
        }
        self.applied(folded, &rows).map_err(|error| sqlx::Error::Decode(Box::new(error)))
    }

    async fn draft(
        &self,
        conn: &mut Conn,
        folded: &FoldedBatch<'_>,
        sent: &[OutboxId],
    ) -> Result<Option<Sql>, sqlx::Error> {
        let encode = |error: Error| sqlx::Error::Encode(Box::new(error));
        let owner = &self.batch.owner;
        if sabotage::active("inbox-apart") && !folded.inbox.is_empty() {
            let apart = FoldedBatch { inbox: folded.inbox.clone(), ..FoldedBatch::default() };
            if let Some(sql) =
                statement::draft(self.inner, owner, SendMode { joined: false, repeats: false }, &apart, &[])
                    .map_err(encode)?
            {
                // the planted bug: what fails is found out by the next statement
                let _ = sql.run(conn).await;
            }
        }
        statement::draft(self.inner, owner, SendMode { joined: self.batch.joined, repeats: self.repeats }, folded, sent)
            .map_err(encode)
    }

    /// What a plan's statement has answered, as outcomes.
    fn applied(&mut self, folded: &FoldedBatch<'_>, rows: &[PgRow]) -> Result<()> {
        let (mut ids, mut blocked) = (Vec::new(), Vec::new());
        if let Some(row) = rows.first() {
            let mut row = Reader::new(row);
            row.get::<i32>()?;
            ids = row.get::<Option<Vec<i64>>>()?.unwrap_or_default();
            blocked = row.get::<Option<Vec<String>>>()?.unwrap_or_default();
        }
        let blocked: HashSet<String> = blocked.into_iter().map(text::unescape).collect();
        let mut ids = ids.into_iter();
        for index in &folded.units {
            let Some(unit) = self.batch.units.get(*index) else { continue };
            let outbox = if self.batch.joined {
                Vec::new()
            } else {
                ids.by_ref().take(unit.sends.len()).map(OutboxId).collect()
            };
            let key = |outgoing: &Outgoing| {
                outgoing.message.headers.order_key.as_ref().is_some_and(|key| blocked.contains(key))
            };
            let outcome = Outcome::Applied { outbox, blocked_by_predecessor: unit.sends.iter().any(key) };
            self.end(*index, outcome);
        }
        self.collect_woken(folded);
        Ok(())
    }

    /// Collects the readers to wake.
    fn collect_woken(&mut self, folded: &FoldedBatch<'_>) {
        if self.batch.joined {
            self.woken.extend(folded.sends.iter().map(|send| wake_key_of(send.outgoing)));
        }
        let moved = folded.rows.keys().any(|table| *table != RowTable::Queue);
        let timer =
            folded.timers.iter().any(|timer| !matches!(timer.due, Due::After(delay) if delay >= READER_POLL_INTERVAL));
        let retry = folded.retries.iter().any(|retry| retry.delay < READER_POLL_INTERVAL);
        if moved || timer || retry || !(folded.parked.is_empty() && folded.adopt.is_empty()) {
            self.woken.insert(WakeKey::Due(self.batch.owner.endpoint.clone()));
        }
    }

    /// Applies the batch's units in a transaction that is open on the connection: all, or the transaction has failed.
    pub(in crate::postgres) async fn apply_within(&mut self, conn: &mut Conn) -> Result<(), sqlx::Error> {
        let encode = |error: Error| sqlx::Error::Encode(Box::new(error));
        let mut pending = self.undecided_units();
        while !pending.is_empty() {
            let folded = match self.fold(&pending) {
                Ok(folded) if !folded.units.is_empty() => folded,
                // one after another: the second one of a chain that does not build on itself is stale
                _ => self.fold(pending.get(..1).unwrap_or_default()).unwrap_or_default(),
            };
            let mode = SendMode { joined: self.batch.joined, repeats: self.repeats };
            let sent: &[OutboxId] = if self.cleaned { &[] } else { &self.batch.sent };
            let draft = statement::draft(self.inner, &self.batch.owner, mode, &folded, sent);
            let rows = match draft.map_err(encode)? {
                Some(sql) => sql.run(conn).await?,
                None => Vec::new(),
            };
            self.cleaned = true;
            self.applied(&folded, &rows).map_err(encode)?;
            pending.drain(..folded.units.len());
        }
        Ok(())
    }

    /// Forgets all outcomes: nothing was done.
    pub(in crate::postgres) fn reset(&mut self) {
        self.outcomes.fill(None);
        self.woken.clear();
        self.cleaned = self.batch.sent.is_empty();
    }

    /// Gives all units this outcome: the commit of the transaction failed.
    pub(in crate::postgres) fn fail_all(&mut self, error: &Error) {
        self.reset();
        self.undecided_units().into_iter().for_each(|index| self.end(index, Outcome::Failed(error.clone())));
    }

    /// Units without an outcome.
    pub(in crate::postgres) fn undecided_units(&self) -> Vec<usize> {
        self.outcomes.iter().enumerate().filter(|(_, outcome)| outcome.is_none()).map(|(index, _)| index).collect()
    }
}
