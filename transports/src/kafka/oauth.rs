//! Tokens instead of a password (OAUTHBEARER): where they come from, and how every client gets one.
//!
//! librdkafka asks for a token among the events of a client, at its start and again after four fifths of the token's life;
//! so a client that nobody polls never gets one. Producers and receivers have threads that poll. The client for questions
//! gets one of its own, and those that live for a moment are polled until they have their token, before they are used.

use crate::lock;
use rdkafka::client::OAuthToken;
use sagabus_core::{Error, ErrorKind, Result, Runtime, Timestamp};
use std::{
    error::Error as StdError,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    time::Duration,
};

/// A token for [`KafkaOptions::oauth`](super::KafkaOptions::oauth). `Debug` does not show it.
#[derive(Clone)]
pub struct OauthToken {
    token: String,
    principal: String,
    lifetime: Duration,
}

impl OauthToken {
    /// The token as the identity provider gave it, whose it is (for messages of the client only: the broker reads the
    /// token), and for how long from now on it is good (the provider's `expires_in`).
    pub fn new(token: impl Into<String>, principal: impl Into<String>, lifetime: Duration) -> Self {
        Self { token: token.into(), principal: principal.into(), lifetime }
    }

    /// What librdkafka would refuse with a text that shows the token, or rdkafka with one that says nothing.
    fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::invalid(format!("take a token from the source of tokens: {what}")));
        if self.token.is_empty() || !self.token.chars().all(|c| c.is_ascii_graphic()) {
            return wrong("it is empty, or has other characters than visible ASCII");
        }
        if self.principal.is_empty() || self.principal.chars().any(char::is_control) {
            return wrong("its principal is empty, or has control characters");
        }
        if self.lifetime.is_zero() {
            return wrong("it has expired");
        }
        Ok(())
    }
}

impl fmt::Debug for OauthToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OauthToken")
            .field("principal", &self.principal)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

/// The answer of a source.
type Answer = std::result::Result<OauthToken, Box<dyn StdError + Send + Sync>>;

/// The tokens that all clients of a transport share.
#[derive(Clone)]
pub(super) struct Tokens(Arc<TokenSource>);

struct TokenSource {
    source: Box<dyn Fn() -> Answer + Send + Sync>,
    runtime: Runtime,
    state: Mutex<TokenState>,
}

#[derive(Default)]
struct TokenState {
    last: Option<(OauthToken, Timestamp)>,
    /// Why there was none the last time.
    failure: Option<Error>,
}

impl Tokens {
    pub(super) fn new(runtime: Runtime, source: impl Fn() -> Answer + Send + Sync + 'static) -> Self {
        Self(Arc::new(TokenSource { source: Box::new(source), runtime, state: Mutex::default() }))
    }

    /// The last token while more than half of its lifetime is left, or a new one; and when it expires. Other clients that
    /// ask meanwhile wait: the provider is asked once.
    fn current(&self) -> Result<(OauthToken, Timestamp)> {
        let mut state = lock(&self.0.state);
        let now = self.0.runtime.now();
        if let Some((token, expires)) = &state.last
            && now.plus(token.lifetime / 2) < *expires
        {
            return Ok((token.clone(), *expires));
        }
        let outcome = self.ask().and_then(|token| token.check().map(|()| token));
        match outcome {
            Ok(token) => {
                state.failure = None;
                let expires = now.plus(token.lifetime);
                Ok(state.last.insert((token, expires)).clone())
            }
            Err(error) => {
                tracing::warn!(%error, "kafka: there is no token");
                state.failure = Some(error.clone());
                Err(error)
            }
        }
    }

    fn ask(&self) -> Result<OauthToken> {
        // a panic would end the thread of whichever client asks
        match catch_unwind(AssertUnwindSafe(|| (self.0.source)())) {
            Ok(Ok(token)) => Ok(token),
            // the text goes to a C library
            Ok(Err(error)) => {
                let text = error.to_string().replace('\0', " ");
                Err(Error::new(ErrorKind::Transient, format!("ask the source of tokens: {text}")))
            }
            Err(_) => Err(Error::new(ErrorKind::Backend, "ask the source of tokens: it has panicked")),
        }
    }

    /// Why there was no token, the last time that one was asked for.
    pub(super) fn failure(&self) -> Option<Error> {
        lock(&self.0.state).failure.clone()
    }
}

/// The answer to a client that asks for a token.
pub(super) fn generate(tokens: Option<&Tokens>) -> std::result::Result<OAuthToken, Box<dyn StdError>> {
    // none is asked for unless the settings say OAUTHBEARER, and that is refused without a source
    let tokens = tokens.ok_or_else(|| Error::invalid("take a token: there is no source of tokens"))?;
    let (token, expires) = tokens.current()?;
    Ok(OAuthToken { token: token.token, principal_name: token.principal, lifetime_ms: expires.0 / 1000 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn a_token_is_shared_until_half_of_its_time_is_over() {
        let runtime = Runtime::manual(1);
        let asked = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&asked);
        let tokens = Tokens::new(runtime.clone(), move || {
            let number = count.fetch_add(1, Ordering::Relaxed);
            Ok(OauthToken::new(format!("hunter{number}"), "me", Duration::from_secs(100)))
        });
        let begin = runtime.now();
        for (second, token, expires) in [(0, "hunter0", 100), (49, "hunter0", 100), (50, "hunter1", 150)] {
            runtime.advance(Duration::from_secs(second).saturating_sub(runtime.now().since(begin)));
            let (given, until) = tokens.current().unwrap();
            assert_eq!((given.token.as_str(), until), (token, begin.plus(Duration::from_secs(expires))));
            assert!(!format!("{given:?}").contains("hunter"));
        }
    }

    #[test]
    fn a_failure_is_known_until_there_is_a_token_again() {
        let asked = AtomicU32::new(0);
        let tokens = Tokens::new(Runtime::manual(1), move || match asked.fetch_add(1, Ordering::Relaxed) {
            0 => Err("not today".into()),
            1 => Ok(OauthToken::new("hunter 2", "me", Duration::from_secs(9))),
            _ => Ok(OauthToken::new("hunter2", "me", Duration::from_secs(9))),
        });
        assert!(tokens.current().unwrap_err().is_transient());
        assert!(tokens.failure().unwrap().to_string().contains("not today"));
        assert!(tokens.current().unwrap_err().is_invalid());
        assert!(!format!("{:?}", tokens.failure()).contains("hunter"));
        assert!(tokens.current().is_ok() && tokens.failure().is_none());
    }
}
