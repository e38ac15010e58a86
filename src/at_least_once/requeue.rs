//! Messages that go back to a queue: to be tried again, or as dead letters.

use sagabus_core::{Destination, Envelope, Headers, Outgoing, UserHeader};

/// The one handler that the message is for.
const HANDLER_HEADER: &str = "sagabus-handler";

/// Of a dead letter: why, the error and its causes, and how often it was tried.
const REASON_HEADER: &str = "error-reason";
const DETAIL_HEADER: &str = "error-detail";
const ATTEMPTS_HEADER: &str = "error-attempts";

/// Most bytes of a reason or of a detail: headers have to fit into a frame.
const MAX_HEADER_BYTES: usize = 2048;

/// The one handler that a requeued message names.
pub(crate) fn intended_handler(headers: &Headers) -> Option<&str> {
    headers.user.get(HANDLER_HEADER).map(|header| header.value.as_str())
}

/// The message as it goes back to its queue.
pub(super) fn retry(endpoint: &str, handler: &str, message: &Envelope, attempts: u32) -> Outgoing {
    let mut message = message.clone();
    message.headers.attempts = attempts;
    message.headers.first_attempt = false;
    set(&mut message.headers, HANDLER_HEADER, handler);
    Outgoing { to: Destination::Queue(endpoint.to_string()), message }
}

/// The message as a dead letter. Without a handler it is one that never reached any.
pub(super) fn dead_letter(
    endpoint: &str,
    handler: &str,
    message: &Envelope,
    attempts: u32,
    (reason, detail): (&str, &str),
) -> Outgoing {
    let mut message = message.clone();
    let headers = &mut message.headers;
    headers.attempts = 0;
    // it may be moved anywhere, by anybody
    headers.first_attempt = false;
    set(headers, REASON_HEADER, reason);
    set(headers, DETAIL_HEADER, detail);
    set(headers, ATTEMPTS_HEADER, &attempts.to_string());
    set(headers, HANDLER_HEADER, handler);
    Outgoing { to: Destination::Queue(format!("{endpoint}.error")), message }
}

fn set(headers: &mut Headers, name: &str, value: &str) {
    if value.is_empty() {
        headers.user.remove(name);
        return;
    }
    let end = (0..=value.len().min(MAX_HEADER_BYTES)).rev().find(|at| value.is_char_boundary(*at)).unwrap_or(0);
    headers.user.insert(name.to_string(), UserHeader { value: value[..end].to_string(), propagate: false });
}

#[cfg(test)]
mod tests {
    use super::*;
    use sagabus_core::{Intent, MessageId, Timestamp};

    #[test]
    fn a_dead_letter_says_why_and_for_whom() {
        let mut headers = Headers::new(MessageId::from_foreign("m"), "t.work", Intent::Command, Timestamp(0));
        headers.first_attempt = true;
        let tried = retry("shop", "work", &Envelope::new(headers, "{}"), 3);
        assert_eq!((intended_handler(&tried.message.headers), tried.message.headers.attempts), (Some("work"), 3));
        let letter = dead_letter("shop", "work", &tried.message, 4, ("handler failed", &"ä".repeat(MAX_HEADER_BYTES)));
        let headers = &letter.message.headers;
        assert_eq!(letter.to, Destination::Queue("shop.error".into()));
        assert_eq!(
            (headers.user[REASON_HEADER].value.as_str(), headers.user[ATTEMPTS_HEADER].value.as_str()),
            ("handler failed", "4")
        );
        assert_eq!(
            (headers.user[DETAIL_HEADER].value.len(), headers.attempts, intended_handler(headers)),
            (MAX_HEADER_BYTES, 0, Some("work"))
        );
        assert!(!tried.message.headers.first_attempt && !headers.first_attempt, "neither is sent for the first time");
        assert_eq!(
            intended_handler(&dead_letter("shop", "", &tried.message, 0, ("unroutable", "")).message.headers),
            None
        );
    }
}
