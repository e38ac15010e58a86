//! Questions about the step before.

use super::{SagaTest, step::Outcome};
use sagabus_core::{HandlerError, Intent, Message};
use sagabus_sagas::Saga;
use std::{fmt::Display, time::Duration};

/// What a closure about a state or an error may return: a `bool`, or nothing if it asserts by itself.
pub trait Assertion {
    /// Whether it holds.
    fn holds(self) -> bool;
}

impl Assertion for bool {
    fn holds(self) -> bool {
        self
    }
}

impl Assertion for () {
    fn holds(self) -> bool {
        true
    }
}

impl<S: Saga> SagaTest<S> {
    /// The step sent such a command. Each message answers one such question only.
    #[track_caller]
    pub fn sent<M: Message>(self, matches: impl Fn(&M) -> bool) -> Self {
        self.left("sent", Intent::Command, matches)
    }

    /// The step published such an event.
    #[track_caller]
    pub fn published<M: Message>(self, matches: impl Fn(&M) -> bool) -> Self {
        self.left("published", Intent::Event, matches)
    }

    /// The step sent such a reply: to the message's sender, or to the saga's originator.
    #[track_caller]
    pub fn replied<M: Message>(self, matches: impl Fn(&M) -> bool) -> Self {
        self.left("replied", Intent::Reply, matches)
    }

    #[track_caller]
    fn left<M: Message>(mut self, verb: &str, intent: Intent, matches: impl Fn(&M) -> bool) -> Self {
        let found = self.harness.step.sent.iter_mut().find(|sent| {
            let message = &sent.outgoing.message;
            let candidate = !sent.asked && message.headers.intent == intent && message.headers.message_type == M::NAME;
            candidate && serde_json::from_slice(&message.body).is_ok_and(|message: M| matches(&message))
        });
        match found {
            Some(sent) => sent.asked = true,
            None => self.fails(format!("no such {} was {verb}", M::NAME)),
        }
        self
    }

    /// The step sent, published and replied nothing.
    #[track_caller]
    pub fn nothing_sent(self) -> Self {
        let none = self.harness.step.sent.is_empty();
        self.ask(none, || "something was sent".into())
    }

    /// The step sent nothing beside what was asked for.
    #[track_caller]
    pub fn nothing_else(self) -> Self {
        let all = self.harness.step.sent.iter().all(|sent| sent.asked);
        self.ask(all, || "more was sent than was asked for".into())
    }

    /// The saga has completed.
    #[track_caller]
    pub fn completed(self) -> Self {
        let ended = self.harness.has_ended();
        self.ask(ended, || "the saga has not completed".into())
    }

    /// The saga exists and goes on.
    #[track_caller]
    pub fn not_completed(self) -> Self {
        let live = self.harness.row().is_some_and(|row| !row.completed);
        let text = if self.harness.has_ended() { "the saga has completed" } else { "there is no saga" };
        self.ask(live, || text.into())
    }

    /// The saga's state is so, as read back from how it was stored.
    #[track_caller]
    pub fn state<R: Assertion>(self, check: impl FnOnce(&S) -> R) -> Self {
        let Some(row) = self.harness.row() else {
            let text = if self.harness.has_ended() {
                "the saga has completed, and its state is gone (`KEEP_COMPLETED` would keep it)"
            } else {
                "there is no saga"
            };
            self.fails(text.into());
            return self;
        };
        let shown = String::from_utf8_lossy(&row.state).into_owned();
        match serde_json::from_slice::<S>(&row.state) {
            Ok(state) => {
                let holds = check(&state).holds();
                self.ask(holds, || format!("the state is {shown}"))
            }
            Err(error) => {
                self.fails(format!("the stored state {shown} cannot be read back: {error}"));
                self
            }
        }
    }

    /// Looks at the saga with this key from here on, instead of the one that the last step was about.
    pub fn saga(mut self, key: impl Display) -> Self {
        self.harness.key = Some(key.to_string());
        self
    }

    /// The handler failed with such an error; nothing of what it did was kept.
    #[track_caller]
    pub fn failed<R: Assertion>(mut self, check: impl FnOnce(&HandlerError) -> R) -> Self {
        self.harness.step.failures_are_known();
        let error = self.harness.step.outcomes.iter().find_map(|outcome| match outcome {
            Outcome::Failed(error) => Some(error),
            _ => None,
        });
        let Some(error) = error else {
            self.fails("no handler failed".into());
            return self;
        };
        let holds = check(error).holds();
        self.ask(holds, || "the handler failed with another error".into())
    }

    /// The message waits for a saga that does not exist yet.
    #[track_caller]
    pub fn parked(self) -> Self {
        self.ended("parked", |outcome| matches!(outcome, Outcome::Parked(_)))
    }

    /// The message went to the dead letters, for a reason that contains this text.
    #[track_caller]
    pub fn dead(mut self, text: &str) -> Self {
        self.harness.step.failures_are_known();
        self.ended(
            &format!("dead-lettered with {text:?}"),
            |outcome| matches!(outcome, Outcome::Dead(reason) if reason.contains(text)),
        )
    }

    /// The message was dropped under this policy: `late-timeout`, `saga-not-found`, `saga-exists`.
    #[track_caller]
    pub fn dropped(self, policy: &str) -> Self {
        self.ended(
            &format!("dropped as {policy:?}"),
            |outcome| matches!(outcome, Outcome::Dropped(other) if *other == policy),
        )
    }

    /// The message was recognised as handled before.
    #[track_caller]
    pub fn duplicate(self) -> Self {
        self.ended("recognised as handled before", |outcome| matches!(outcome, Outcome::Duplicate))
    }

    #[track_caller]
    fn ended(self, how: &str, is: impl Fn(&Outcome) -> bool) -> Self {
        let any = self.harness.step.outcomes.iter().any(is);
        self.ask(any, || format!("no message was {how}"))
    }

    /// A timeout of this type is due after this time from now.
    #[track_caller]
    pub fn timeout_in<M: Message>(self, time: Duration) -> Self {
        let due = self.harness.now().plus(time);
        let mut of_type = self.harness.rows.timers.iter().filter(|t| t.message.headers.message_type == M::NAME);
        let found = of_type.any(|timer| timer.due == due);
        self.ask(found, || format!("no {} is due in {time:?}", M::NAME))
    }

    /// No timeout is pending, of any saga.
    #[track_caller]
    pub fn no_timeout(self) -> Self {
        let none = self.harness.rows.timers.is_empty();
        self.ask(none, || "there are timeouts".into())
    }

    #[track_caller]
    fn ask(self, holds: bool, problem: impl FnOnce() -> String) -> Self {
        if !holds {
            self.fails(problem());
        }
        self
    }

    #[track_caller]
    fn fails(&self, problem: String) {
        let mut text = format!("{problem}\n{}", self.harness.step);
        for timer in &self.harness.rows.timers {
            let after = timer.due.since(self.harness.now());
            text += &format!("\n  timeout {} in {after:?}", timer.message.headers.message_type);
        }
        panic!("saga `{}`: {text}", self.harness.saga_name());
    }
}
