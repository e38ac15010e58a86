use crate::MessageId;
use std::{error::Error as StdError, fmt, sync::Arc};

/// The error of every port and of the endpoint itself.
///
/// Opaque: ask the predicates what to do. The text names the operation and the thing, never a secret; the cause is
/// kept as [`source`](StdError::source) and not repeated in the text.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    text: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
    message_id: Option<MessageId>,
}

/// What sort of failure an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration or an argument is wrong; trying again does not help. The text says what to change.
    Invalid,
    /// The backend does not have this capability.
    Unsupported,
    /// The backend is busy, locked or gone for the moment; nothing was done; trying again may help.
    Transient,
    /// Something may or may not have been done. Only a repetition with the same ids is safe.
    Unknown,
    /// What was named does not exist.
    NotFound,
    /// Somebody else was faster: the version, the lease or the gate is gone.
    Conflict,
    /// The endpoint is stopping or stopped.
    Closed,
    /// The backend failed for good: corrupt, refused, out of space.
    Backend,
}

impl Error {
    /// An error of a kind, with a text in lower case that names the operation and the thing.
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self(Arc::new(Inner { kind, text: text.into(), source: None, message_id: None }))
    }

    /// The same with the cause.
    pub fn with_source(
        kind: ErrorKind,
        text: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self(Arc::new(Inner { kind, text: text.into(), source: Some(source.into()), message_id: None }))
    }

    /// Shorthand for [`ErrorKind::Invalid`].
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, text)
    }

    /// Shorthand for [`ErrorKind::Unsupported`].
    pub fn unsupported(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, text)
    }

    /// Shorthand for [`ErrorKind::Closed`].
    pub fn closed(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Closed, text)
    }

    /// The same error about a certain message.
    pub fn for_message(self, message: MessageId) -> Self {
        let (kind, text) = (self.0.kind, format!("send message {message}"));
        Self(Arc::new(Inner { kind, text, source: Some(self.into()), message_id: Some(message) }))
    }

    /// The message that a send was about. After an [unknown](Error::is_unknown) outcome, send it again under this id.
    pub fn message_id(&self) -> Option<MessageId> {
        self.0.message_id
    }

    /// The kind, for a `match`.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The configuration or an argument is wrong.
    pub fn is_invalid(&self) -> bool {
        self.0.kind == ErrorKind::Invalid
    }

    /// The backend lacks the capability.
    pub fn is_unsupported(&self) -> bool {
        self.0.kind == ErrorKind::Unsupported
    }

    /// Nothing was done, and trying again may help.
    pub fn is_transient(&self) -> bool {
        self.0.kind == ErrorKind::Transient
    }

    /// It may or may not have been done: repeat with the same message id only.
    pub fn is_unknown(&self) -> bool {
        self.0.kind == ErrorKind::Unknown
    }

    /// What was named does not exist.
    pub fn is_not_found(&self) -> bool {
        self.0.kind == ErrorKind::NotFound
    }

    /// Somebody else was faster.
    pub fn is_conflict(&self) -> bool {
        self.0.kind == ErrorKind::Conflict
    }

    /// The endpoint is stopping or stopped.
    pub fn is_closed(&self) -> bool {
        self.0.kind == ErrorKind::Closed
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.0.text)?;
        let mut source = self.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|e| &**e as &(dyn StdError + 'static))
    }
}
