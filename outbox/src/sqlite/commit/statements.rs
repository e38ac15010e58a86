use super::super::{
    sql::{self, Done, Late, Step},
    write_context::WriteContext,
};
use sagabus_core::{OutboxId, Result};

/// The statements of a batch, with what each must hit.
#[derive(Default)]
pub(super) struct StatementBatch<'a> {
    steps: Vec<Step>,
    expected: Vec<ExpectedRows>,
    late: Option<Late<'a>>,
}

/// What a statement must do.
#[derive(Clone, Copy)]
pub(super) enum ExpectedRows {
    /// Change exactly so many rows.
    Exactly(u64),
    /// Insert so many outbox rows, whose ids are then consecutive.
    Outbox(i64),
    /// Whatever there is.
    Any,
}

impl<'a> StatementBatch<'a> {
    /// Adds steps whose rows are checked as a whole: `expected` rows over all of them.
    pub(super) fn add(&mut self, steps: Vec<Step>, rows: usize, expected: fn(u64) -> ExpectedRows) {
        let mut left = rows;
        for step in steps {
            let here = left.min(sql::MAX_ROWS_PER_STATEMENT);
            left -= here;
            self.steps.push(step);
            self.expected.push(expected(here as u64));
        }
    }

    /// Adds steps over so many rows that are made while others run; once, and nothing after it.
    pub(super) fn add_late(&mut self, make: Late<'a>, rows: usize, expected: fn(u64) -> ExpectedRows) {
        for start in (0..rows).step_by(sql::MAX_ROWS_PER_STATEMENT) {
            self.expected.push(expected((rows - start).min(sql::MAX_ROWS_PER_STATEMENT) as u64));
        }
        self.late = Some(make);
    }

    /// Adds steps of which nothing is expected.
    pub(super) fn add_any(&mut self, steps: Vec<Step>) {
        self.add(steps, 0, |_| ExpectedRows::Any);
    }

    /// Runs all; the ids of the outbox rows, or `None` if a statement hit other rows than it must.
    pub(super) async fn run(self, context: &mut WriteContext<'_>) -> Result<Option<Vec<OutboxId>>> {
        let mut outbox = Vec::new();
        let expected = self.expected;
        let check = |n: usize, done: Done| match expected.get(n) {
            Some(ExpectedRows::Exactly(rows)) => done.changes == *rows,
            Some(ExpectedRows::Outbox(rows)) => {
                outbox.extend((done.last_id - rows + 1..=done.last_id).map(OutboxId));
                true
            }
            Some(ExpectedRows::Any) | None => true,
        };
        let well = sql::run_with(context.connection, self.steps, self.late, "write a batch to sqlite", check).await?;
        Ok(well.then_some(outbox))
    }
}
