//! How a message finds its saga.

use super::kind::{Kind, Role};
use sagabus_core::{HandlerError, Headers, Intent, Limits, SagaAddress, SagaLookup};
use std::sync::Arc;

/// The instance that a message is addressed to, if it is: timeouts, and replies to this kind of saga. Commands and events
/// find their saga by their content only.
pub(crate) fn address<'a>(kind: &Kind, headers: &'a Headers) -> Option<&'a SagaAddress> {
    let addressed = matches!(headers.intent, Intent::Reply | Intent::Timeout);
    let saga = headers.saga.as_ref().filter(|_| addressed)?;
    (*saga.kind == *kind.kind).then_some(saga)
}

/// The address of a saga of another kind that a reply or timeout is for.
pub(crate) fn stranger<'a>(kind: &Kind, headers: &'a Headers) -> Option<&'a SagaAddress> {
    let addressed = matches!(headers.intent, Intent::Reply | Intent::Timeout);
    let saga = headers.saga.as_ref().filter(|_| addressed)?;
    (*saga.kind != *kind.kind).then_some(saga)
}

/// Refuses correlation values that no store could keep apart or keep at all.
pub(crate) fn check_value(what: &str, value: &str, limits: &Limits) -> Result<(), String> {
    if value.is_empty() {
        return Err(format!("{what} is empty"));
    }
    if value.len() > limits.key {
        return Err(format!("{what} is {} bytes long, {} are allowed", value.len(), limits.key));
    }
    if value.contains('\0') {
        return Err(format!("{what} contains a NUL character, which databases do not store"));
    }
    Ok(())
}

/// The saga that a message is for. `value` is what the route's closure made of it.
pub(crate) fn lookup(
    kind: &Kind,
    role: Role,
    headers: &Headers,
    limits: &Limits,
    value: impl FnOnce() -> String,
) -> Result<SagaLookup, HandlerError> {
    if let Some(saga) = stranger(kind, headers) {
        return Err(HandlerError::permanent(format!(
            "{} {} is addressed to saga {}, not to {}",
            headers.message_type, headers.message_id, saga.kind, kind.kind
        )));
    }
    if let Some(saga) = address(kind, headers) {
        return Ok(SagaLookup::Instance(saga.clone()));
    }
    if matches!(role, Role::Timeout) {
        return Err(HandlerError::permanent(format!(
            "{} {} is a timeout of saga {} but is addressed to no saga: it must be asked for with `ctx.timeout`, not sent",
            headers.message_type, headers.message_id, kind.kind
        )));
    }
    let value = value();
    let what = match role {
        Role::Alias(alias, _) => format!("the {alias} of {} for saga {}", headers.message_type, kind.kind),
        _ => format!("the key of {} for saga {}", headers.message_type, kind.kind),
    };
    check_value(&what, &value, limits).map_err(HandlerError::permanent)?;
    let kind = Arc::clone(&kind.kind);
    Ok(match role {
        Role::Alias(alias, _) => SagaLookup::Alias { kind, alias: alias.to_string(), value },
        _ => SagaLookup::Key { kind, key: value },
    })
}
