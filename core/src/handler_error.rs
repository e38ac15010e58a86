use std::{error::Error as StdError, fmt, time::Duration};

type Cause = Box<dyn StdError + Send + Sync>;

/// Why a handler failed.
///
/// Every error converts into it with `?` and is retried by the endpoint's policy. `.permanent()?` sends the message to
/// the dead letters at once; [`HandlerError::retry_in`] asks for a certain delay. The scheme follows Restate's Rust SDK:
/// the type is not itself a `std::error::Error`, so that one blanket conversion can exist.
pub struct HandlerError {
    cause: Cause,
    permanent: bool,
    retry_in: Option<Duration>,
}

/// An error that no retry will cure. Made by [`HandlerResultExt::permanent`].
pub struct Permanent(Cause);

impl Permanent {
    /// Wraps a cause, or a text.
    pub fn new(cause: impl Into<Cause>) -> Self {
        Self(cause.into())
    }
}

impl HandlerError {
    /// An error that is retried by policy.
    pub fn new(cause: impl Into<Cause>) -> Self {
        Self { cause: cause.into(), permanent: false, retry_in: None }
    }

    /// An error that sends the message to the dead letters without a retry.
    pub fn permanent(cause: impl Into<Cause>) -> Self {
        Self { cause: cause.into(), permanent: true, retry_in: None }
    }

    /// An error after which the message is retried no earlier than after `delay`. It counts as one attempt; the delay
    /// survives restarts.
    pub fn retry_in(delay: Duration, cause: impl Into<Cause>) -> Self {
        Self { cause: cause.into(), permanent: false, retry_in: Some(delay) }
    }

    /// Whether no retry will help.
    pub fn is_permanent(&self) -> bool {
        self.permanent
    }

    /// The delay that was asked for, if any.
    pub fn retry_delay(&self) -> Option<Duration> {
        self.retry_in
    }

    /// The error and its causes, outermost first, for the dead letter.
    pub fn chain(&self) -> Vec<String> {
        let mut texts = vec![self.cause.to_string()];
        let mut source = self.cause.source();
        while let Some(error) = source {
            texts.push(error.to_string());
            source = error.source();
        }
        texts
    }

    /// The cause itself.
    pub fn cause(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.cause
    }
}

impl<E: Into<Cause>> From<E> for HandlerError {
    fn from(cause: E) -> Self {
        Self::new(cause)
    }
}

impl From<Permanent> for HandlerError {
    fn from(error: Permanent) -> Self {
        Self { cause: error.0, permanent: true, retry_in: None }
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.chain().join(": "))
    }
}

impl fmt::Debug for Permanent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `.permanent()` on any `Result`.
pub trait HandlerResultExt<T> {
    /// Marks the error as one that no retry will cure.
    fn permanent(self) -> Result<T, Permanent>;
}

impl<T, E: Into<Cause>> HandlerResultExt<T> for Result<T, E> {
    fn permanent(self) -> Result<T, Permanent> {
        self.map_err(|e| Permanent(e.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<u32, HandlerError> {
        Ok(text.parse::<u32>()?)
    }

    fn must_parse(text: &str) -> Result<u32, HandlerError> {
        Ok(text.parse::<u32>().permanent()?)
    }

    #[test]
    fn question_mark_is_retryable_and_permanent_is_not() {
        assert!(!parse("x").unwrap_err().is_permanent());
        assert!(must_parse("x").unwrap_err().is_permanent());
        assert!(HandlerError::permanent("no such order").is_permanent());
        let late = HandlerError::retry_in(Duration::from_secs(60), "throttled");
        assert_eq!(late.retry_delay(), Some(Duration::from_secs(60)));
        assert_eq!(late.chain(), ["throttled"]);
    }
}
