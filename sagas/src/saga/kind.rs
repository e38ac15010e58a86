use sagabus_core::{NotFound, OnExisting};
use std::sync::Arc;

/// What is known about one kind of saga in one endpoint, shared by its routes.
pub(crate) struct Kind {
    /// Its name: the handler's name.
    pub(crate) name: Arc<str>,
    /// `endpoint/name`: how its rows and addresses call it.
    pub(crate) kind: Arc<str>,
    /// The wire names of its timeouts.
    pub(crate) timeouts: Vec<&'static str>,
    /// The names by which `continued_by_alias` looks it up.
    pub(crate) aliases: Vec<&'static str>,
}

/// What a message is to a saga.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    Start(OnExisting),
    Continue(NotFound),
    Alias(&'static str, NotFound),
    Timeout,
}

impl Kind {
    /// The names in a list, for an error text.
    pub(crate) fn list(names: &[&'static str]) -> String {
        if names.is_empty() { "none".into() } else { names.join(", ") }
    }
}
