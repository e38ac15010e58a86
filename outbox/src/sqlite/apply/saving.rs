use super::super::{
    sql::{self, Done, Step},
    tx::Desk,
};
use sagabus_core::{OutboxId, Result};

/// The statements of a batch, with what each must hit.
#[derive(Default)]
pub(super) struct Saving {
    steps: Vec<Step>,
    expected: Vec<Expected>,
}

/// What a statement must do.
#[derive(Clone, Copy)]
pub(super) enum Expected {
    /// Change exactly so many rows.
    Exactly(u64),
    /// Insert so many outbox rows, whose ids are then consecutive.
    Outbox(i64),
    /// Whatever there is.
    Any,
}

impl Saving {
    /// Adds steps whose rows are checked as a whole: `expected` rows over all of them.
    pub(super) fn add(&mut self, steps: Vec<Step>, rows: usize, expected: fn(u64) -> Expected) {
        let mut left = rows;
        for step in steps {
            let here = left.min(sql::MOST);
            left -= here;
            self.steps.push(step);
            self.expected.push(expected(here as u64));
        }
    }

    /// Adds steps of which nothing is expected.
    pub(super) fn add_any(&mut self, steps: Vec<Step>) {
        self.add(steps, 0, |_| Expected::Any);
    }

    /// Runs all; the ids of the outbox rows, or `None` if a statement hit other rows than it must.
    pub(super) async fn run(self, desk: &mut Desk<'_>) -> Result<Option<Vec<OutboxId>>> {
        let mut outbox = Vec::new();
        let expected = self.expected;
        let check = |n: usize, done: Done| match expected.get(n) {
            Some(Expected::Exactly(rows)) => done.changes == *rows,
            Some(Expected::Outbox(rows)) => {
                outbox.extend((done.last_id - rows + 1..=done.last_id).map(OutboxId));
                true
            }
            Some(Expected::Any) | None => true,
        };
        let well = sql::run_all(desk.connection, self.steps, "write a batch to sqlite", check).await?;
        Ok(well.then_some(outbox))
    }
}
