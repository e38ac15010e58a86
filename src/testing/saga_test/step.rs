//! What one step of a test brought about, and what was asked about it.

use sagabus_core::{HandlerError, Intent, Outgoing};
use std::{fmt, panic::Location, time::Duration};

/// What became of a message.
pub(super) enum Outcome {
    Handled,
    Failed(HandlerError),
    Parked(Duration),
    Dead(String),
    Dropped(&'static str),
    Duplicate,
}

/// A message that the saga sent.
pub(super) struct Sent {
    pub(super) outgoing: Outgoing,
    /// Whether the test has asked for it.
    pub(super) asked: bool,
}

#[derive(Default)]
pub(super) struct Step {
    title: String,
    location: Option<&'static Location<'static>>,
    pub(super) sent: Vec<Sent>,
    pub(super) outcomes: Vec<Outcome>,
    asked_failures: bool,
}

impl Step {
    pub(super) fn new(title: String, location: &'static Location<'static>) -> Self {
        Self { title, location: Some(location), ..Self::default() }
    }

    /// The test knows that it failed.
    pub(super) fn failures_are_known(&mut self) {
        self.asked_failures = true;
    }

    /// Panics if the step ended badly and nobody looked.
    #[track_caller]
    pub(super) fn must_be_asked(&self) {
        let bad = self.outcomes.iter().find(|o| matches!(o, Outcome::Failed(_) | Outcome::Dead(_)));
        if let (Some(bad), false) = (bad, self.asked_failures) {
            let location = self.location.map(|location| format!(" at {location}")).unwrap_or_default();
            let ask = if matches!(bad, Outcome::Failed(_)) { "failed(|error| …)" } else { "dead(\"…\")" };
            panic!("`{}`{location} {bad}\nif that is meant to be, ask with `.{ask}`", self.title);
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Handled => f.write_str("was handled"),
            Outcome::Failed(error) => write!(f, "failed: {error:?}"),
            Outcome::Parked(wait) => write!(f, "was parked for {wait:?}, until its saga exists"),
            Outcome::Dead(reason) => write!(f, "went to the dead letters: {reason}"),
            Outcome::Dropped(policy) => write!(f, "was dropped: {policy}"),
            Outcome::Duplicate => f.write_str("was recognised as handled before"),
        }
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = &self.outgoing.message;
        let verb = match message.headers.intent {
            Intent::Command => "sent",
            Intent::Event => "published",
            Intent::Reply => "replied",
            Intent::Timeout => "timeout",
        };
        let body = String::from_utf8_lossy(&message.body);
        write!(f, "{verb} {} {body}", message.headers.message_type)
    }
}

/// The whole step, for the text of a failed assertion.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", if self.title.is_empty() { "before the first step" } else { &self.title })?;
        for (n, outcome) in self.outcomes.iter().enumerate() {
            write!(f, "{}{outcome}", if n == 0 { " " } else { ", then " })?;
        }
        if self.sent.is_empty() {
            write!(f, "\n  nothing was sent, published or replied")?;
        }
        for sent in &self.sent {
            write!(f, "\n  {sent}{}", if sent.asked { " (asked for already)" } else { "" })?;
        }
        Ok(())
    }
}
