//! How a [`SqlTransport`](super::SqlTransport) works.

use sagabus_core::Capabilities;
use std::time::Duration;

/// How a [`SqlTransport`](super::SqlTransport) works.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SqlOptions {
    /// How often an empty queue is looked into although nothing hinted at a new message (default 100 ms).
    pub poll: Duration,
    /// What the transport says it can do; for tests of what happens where something is missing (default: everything).
    pub capabilities: Capabilities,
}

impl Default for SqlOptions {
    fn default() -> Self {
        Self { poll: Duration::from_millis(100), capabilities: Capabilities::all() }
    }
}

impl SqlOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`poll`](Self::poll).
    #[must_use]
    pub fn poll(mut self, poll: Duration) -> Self {
        self.poll = poll;
        self
    }

    /// Sets [`capabilities`](Self::capabilities).
    #[must_use]
    pub fn capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }
}
