//! Clients for questions: those that live as long as the transport, and those that live for a moment.
//!
//! librdkafka asks for a token among the events of a client; a client that is not polled never gets one. So a client that
//! stays is polled by a thread, and one that lives for a moment is polled until it has its token.

use super::{error::unusable, metadata_context::MetadataContext, options::KafkaOptions};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};
use sagabus_core::{Error, ErrorKind, Result};
use std::{sync::Arc, time::Duration};

/// How long a new client may take to ask for its token.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that stays.
pub(super) fn lasting(config: &ClientConfig, options: &KafkaOptions) -> Result<Arc<BaseConsumer<MetadataContext>>> {
    let client = Arc::new(create(config, options)?);
    if options.tokens.is_some() {
        keep_polled(&client)?;
    }
    Ok(client)
}

/// A client that is soon gone again.
pub(super) fn short_lived(config: &ClientConfig, options: &KafkaOptions) -> Result<BaseConsumer<MetadataContext>> {
    let client = create(config, options)?;
    wait_for_token(&client, options)?;
    Ok(client)
}

fn create(config: &ClientConfig, options: &KafkaOptions) -> Result<BaseConsumer<MetadataContext>> {
    config.create_with_context(MetadataContext::new(options.tokens.clone())).map_err(unusable)
}

/// Polls a client on a thread, until the client is dropped.
fn keep_polled(client: &Arc<BaseConsumer<MetadataContext>>) -> Result<()> {
    let client = Arc::downgrade(client);
    let work = move || {
        while let Some(client) = client.upgrade() {
            // errors are told to its context
            drop(client.poll(Duration::from_millis(200)));
        }
    };
    let thread = std::thread::Builder::new().name("sagabus-kafka-token".into()).spawn(work);
    thread.map(drop).map_err(|e| Error::with_source(ErrorKind::Transient, "start a thread for kafka", e))
}

/// Polls a new client until it has its token. It has no partitions yet, so there is nothing else to take.
fn wait_for_token(client: &BaseConsumer<MetadataContext>, options: &KafkaOptions) -> Result<()> {
    let Some(tokens) = &options.tokens else { return Ok(()) };
    let start = options.runtime.elapsed();
    while !client.context().has_asked() {
        drop(client.poll(Duration::from_millis(20)));
        if options.runtime.elapsed() - start > TOKEN_TIMEOUT {
            return Err(Error::new(ErrorKind::Transient, "make a kafka client: it did not ask for a token in time"));
        }
    }
    tokens.failure().map_or(Ok(()), Err)
}
