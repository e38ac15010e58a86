//! A batch on its way from units to outcomes.

use super::{
    super::{
        bells::Place as Bell,
        days::Place,
        error::{Fault, failed, fault, write_failed},
        open::Inner,
        pool::Conn,
        sql::{self, Reader, Sql, micros},
        text,
    },
    AGAIN, bell_of,
    facts::{self, Facts},
    plan::{Folded, Plan},
    statement::{self, Mode},
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

/// Who reads rows that are due looks so often at least: nobody need be woken for what is due later.
const READERS_LOOK: Duration = Duration::from_secs(1);

/// A batch on its way.
pub(in crate::postgres) struct Run<'b> {
    inner: &'b Inner,
    batch: &'b CommitBatch,
    places: HashMap<usize, Place>,
    outcomes: Vec<Option<Outcome>>,
    /// (kind, key) of which a unit was not applied: the later ones of its chain are not either.
    broken: HashSet<(&'b str, &'b str)>,
    pub(super) cleaned: bool,
    /// A queue has taken one of the ids before: such are skipped from now on.
    pub(in crate::postgres) repeats: bool,
    bells: HashSet<Bell>,
}

impl<'b> Run<'b> {
    pub(in crate::postgres) async fn new(inner: &'b Inner, batch: &'b CommitBatch) -> Result<Self> {
        if batch.joined {
            inner.resolve(batch.units.iter().flat_map(|unit| &unit.sends)).await?;
        }
        let mut places = HashMap::new();
        for (index, unit) in batch.units.iter().enumerate() {
            if unit.gate == Gate::Inbox {
                places.insert(index, inner.place(unit.message_id));
            }
        }
        Ok(Self {
            inner,
            batch,
            places,
            outcomes: vec![None; batch.units.len()],
            broken: HashSet::new(),
            cleaned: batch.sent.is_empty(),
            repeats: false,
            bells: HashSet::new(),
        })
    }

    pub(in crate::postgres) fn reply(self) -> CommitReply {
        self.bells.iter().for_each(|place| self.inner.bells.ring(place));
        self.inner.notifier.mark(&self.bells);
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
    pub(super) async fn all(&mut self, mut pending: Vec<usize>) -> Result<(), (Error, Vec<usize>)> {
        let mut conn = self.inner.work.take().await.map_err(|error| (error, pending.clone()))?;
        let (mut again, mut careful, mut judge) = (0, false, false);
        while !pending.is_empty() {
            if judge {
                let before = pending.len();
                pending = match self.judge(&mut conn, &pending).await {
                    Ok(left) => left,
                    Err(error) => return Err((error, pending)),
                };
                // nothing to be seen any more: somebody else has come and gone
                again += u32::from(before == pending.len());
                careful |= again > 3;
                judge = false;
                continue;
            }
            let mut plan = Plan::default();
            let most = if careful { 1 } else { pending.len() };
            if plan.fold(self.batch, &pending[..most], &self.places) == Folded::Broken {
                judge = true;
                careful |= again > 3;
                again += 1;
                if again > AGAIN {
                    return Err((Error::invalid("a batch has a chain that does not build on itself"), pending));
                }
                continue;
            }
            let Err(error) = self.execute(&mut conn, &plan).await else {
                // what was taken stands first
                pending.drain(..plan.units.len());
                continue;
            };
            match fault(&error) {
                Fault::Conflict if again < AGAIN => {
                    judge = true;
                    // perhaps it was a queue that is gone
                    if let Err(error) = self.resolve_again().await {
                        return Err((error, pending));
                    }
                }
                Fault::Repeated if !self.repeats => self.repeats = true,
                Fault::Again if again < AGAIN => {
                    again += 1;
                    let runtime = self.inner.runtime();
                    runtime.sleep(runtime.jitter(Duration::from_millis(2 << again.min(5)))).await;
                }
                Fault::NoPartition if again < AGAIN => {
                    again += 1;
                    if let Err(error) = self.inner.make_days(&mut conn).await {
                        return Err((error, pending));
                    }
                }
                Fault::Lost => {
                    let error = self.lost(error, &plan.units);
                    // the rest was not tried
                    pending.drain(..plan.units.len());
                    return error.map_err(|error| (error, pending));
                }
                Fault::Refused if pending.len() > 1 && !careful => careful = true,
                Fault::Refused => {
                    let error = failed("commit a unit to postgres", error);
                    self.end(pending.remove(0), Outcome::Failed(error));
                    judge = true;
                }
                _ => return Err((failed("commit to postgres", error), pending)),
            }
        }
        conn.release();
        Ok(())
    }

    pub(in crate::postgres) async fn resolve_again(&self) -> Result<()> {
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
    pub(in crate::postgres) async fn judge(&mut self, conn: &mut Conn, units: &[usize]) -> Result<Vec<usize>> {
        let question = facts::question(&self.inner.s, self.batch, units, &self.places);
        let what = "find out why a commit failed";
        let rows = question.sql.clone().run(conn).await.map_err(|error| failed(what, error))?;
        let mut facts = Facts::read(&question, &rows)?;
        let mut left = Vec::new();
        for index in units {
            let Some(unit) = self.batch.units.get(*index) else { continue };
            match facts.judge(*index, unit, &mut self.broken) {
                Some(outcome) => self.end(*index, outcome),
                None => left.push(*index),
            }
        }
        Ok(left)
    }

    async fn execute(&mut self, conn: &mut Conn, plan: &Plan<'_>) -> Result<(), sqlx::Error> {
        let sent: &[OutboxId] = if self.cleaned { &[] } else { &self.batch.sent };
        let drafted = self.draft(conn, plan, sent).await?;
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
        self.applied(plan, &rows).map_err(|error| sqlx::Error::Decode(Box::new(error)))
    }

    async fn draft(&self, conn: &mut Conn, plan: &Plan<'_>, sent: &[OutboxId]) -> Result<Option<Sql>, sqlx::Error> {
        let encode = |error: Error| sqlx::Error::Encode(Box::new(error));
        let owner = &self.batch.owner;
        if sabotage::active("inbox-apart") && !plan.inbox.is_empty() {
            let apart = Plan { inbox: plan.inbox.clone(), ..Plan::default() };
            if let Some(sql) = statement::draft(self.inner, owner, Mode { joined: false, repeats: false }, &apart, &[])
                .map_err(encode)?
            {
                // the planted bug: what fails is found out by the next statement
                let _ = sql.run(conn).await;
            }
        }
        statement::draft(self.inner, owner, Mode { joined: self.batch.joined, repeats: self.repeats }, plan, sent)
            .map_err(encode)
    }

    /// What a plan's statement has answered, as outcomes.
    fn applied(&mut self, plan: &Plan<'_>, rows: &[PgRow]) -> Result<()> {
        let (mut ids, mut behind) = (Vec::new(), Vec::new());
        if let Some(row) = rows.first() {
            let mut row = Reader::new(row);
            row.get::<i32>()?;
            ids = row.get::<Option<Vec<i64>>>()?.unwrap_or_default();
            behind = row.get::<Option<Vec<String>>>()?.unwrap_or_default();
        }
        let behind: HashSet<String> = behind.into_iter().map(text::unescape).collect();
        let mut ids = ids.into_iter();
        for index in &plan.units {
            let Some(unit) = self.batch.units.get(*index) else { continue };
            let outbox = if self.batch.joined {
                Vec::new()
            } else {
                ids.by_ref().take(unit.sends.len()).map(OutboxId).collect()
            };
            let key = |outgoing: &Outgoing| {
                outgoing.message.headers.order_key.as_ref().is_some_and(|key| behind.contains(key))
            };
            let outcome = Outcome::Applied { outbox, blocked_by_predecessor: unit.sends.iter().any(key) };
            self.end(*index, outcome);
        }
        self.note(plan);
        Ok(())
    }

    /// Who may want to know.
    fn note(&mut self, plan: &Plan<'_>) {
        if self.batch.joined {
            self.bells.extend(plan.sends.iter().map(|send| bell_of(send.outgoing)));
        }
        let moved = plan.rows.keys().any(|table| *table != RowTable::Queue);
        let timer = plan.timers.iter().any(|timer| !matches!(timer.due, Due::After(delay) if delay >= READERS_LOOK));
        let retry = plan.retries.iter().any(|retry| retry.delay < micros(READERS_LOOK));
        if moved || timer || retry || !(plan.parked.is_empty() && plan.adopt.is_empty()) {
            self.bells.insert(Bell::Due(self.batch.owner.endpoint.clone()));
        }
    }

    /// Applies the batch's units in a transaction that is open on the connection: all, or the transaction has failed.
    pub(in crate::postgres) async fn inside(&mut self, conn: &mut Conn) -> Result<(), sqlx::Error> {
        let encode = |error: Error| sqlx::Error::Encode(Box::new(error));
        let mut pending = self.open_units();
        while !pending.is_empty() {
            let mut plan = Plan::default();
            if plan.fold(self.batch, &pending, &self.places) == Folded::Broken || plan.units.is_empty() {
                // one after another: the second one of a chain that does not build on itself is stale
                plan = Plan::default();
                plan.fold(self.batch, pending.get(..1).unwrap_or_default(), &self.places);
            }
            let mode = Mode { joined: self.batch.joined, repeats: self.repeats };
            let sent: &[OutboxId] = if self.cleaned { &[] } else { &self.batch.sent };
            let draft = statement::draft(self.inner, &self.batch.owner, mode, &plan, sent);
            let rows = match draft.map_err(encode)? {
                Some(sql) => sql.run(conn).await?,
                None => Vec::new(),
            };
            self.cleaned = true;
            self.applied(&plan, &rows).map_err(encode)?;
            pending.drain(..plan.units.len());
        }
        Ok(())
    }

    /// Nothing of it was done.
    pub(in crate::postgres) fn undo(&mut self) {
        self.outcomes.fill(None);
        self.bells.clear();
        self.cleaned = self.batch.sent.is_empty();
    }

    /// The commit of the transaction failed.
    pub(in crate::postgres) fn undo_all(&mut self, error: &Error) {
        self.undo();
        self.open_units().into_iter().for_each(|index| self.end(index, Outcome::Failed(error.clone())));
    }

    /// Units without an outcome.
    pub(in crate::postgres) fn open_units(&self) -> Vec<usize> {
        self.outcomes.iter().enumerate().filter(|(_, outcome)| outcome.is_none()).map(|(index, _)| index).collect()
    }
}
