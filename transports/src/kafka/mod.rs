//! A Kafka cluster (3.9 and later) as a transport.
//!
//! # What lies on the cluster
//!
//! | what | is |
//! |---|---|
//! | topic `<prefix>cmd.<endpoint>` | commands and replies for the endpoint |
//! | topic `<prefix>evt.<message type>` | events of a type; made with the first subscription |
//! | topic `<prefix>sub.<endpoint>` | the log of the endpoint's subscriptions: from which offsets on, up to which |
//! | group `<prefix><endpoint>` | the endpoint's processes, and how far they are |
//!
//! The prefix is `sagabus.` unless the URL says otherwise. In topics `_` is written `__`, `:` is `_c` and `/` is `_s`.
//! A topic that exists with settings that would lose messages is refused, and nothing is ever deleted but reply queues.
//!
//! # How a message looks
//!
//! The record's key is the order key, and the partition the one that the Java client would choose for it (murmur2). What has
//! none goes to one partition for a moment and then to another. All headers are text.
//!
//! | ours | Kafka |
//! |---|---|
//! | message id | header `sagabus-id` (one that is no UUID becomes a UUIDv5 of it; none: one of topic, partition, offset) |
//! | message type | header `sagabus-type`; missing on an event's topic: the topic's type |
//! | content type | header `content-type` (missing: JSON) |
//! | intent | header `sagabus-intent`: `command`, `event`, `reply`, `timeout`; missing: by the topic |
//! | correlation id, reply address | headers `sagabus-correlation-id`, `sagabus-reply-to` |
//! | sent at, cause, conversation, whether for the first time | header `sagabus`: `sent-at=<microseconds>;cause=<id>;conversation=<id>;first` |
//! | what of these is missing | the record's timestamp (milliseconds); none; the cause, or else the message id; perhaps not |
//! | the same, from whoever likes that better | headers `sagabus-sent-at`, `sagabus-causation-id`, `sagabus-conversation-id`, `sagabus-first` (`1`) |
//! | expires at, attempts | headers `sagabus-expires-at` (microseconds), `sagabus-attempts` |
//! | order key | header `sagabus-order-key`; on records without `sagabus-id`: the record's key, if it is text |
//! | saga, originator | headers `sagabus-saga`, `sagabus-originator` (JSON) |
//! | trace context | headers `traceparent`, `tracestate` |
//! | user headers | headers of the same name; of several the last one |
//! | which of them propagate | header `sagabus-propagate`: their names (JSON) |
//! | names that mean something else here | header `sagabus-user` (JSON) |
//!
//! So any client can send. What cannot be understood, tombstones included, becomes a dead letter with the reason.
//!
//! # How it is read
//!
//! - Messages of a partition are handled at the same time and finish in any order. Committed is the offset of the first
//!   one that is not finished; which ones behind it are finished stands in the text beside the offset, so that they do not
//!   come again.
//! - Before messages are handed out, a limit above them is committed. Whoever takes over from a process that died knows by
//!   it which may have been in flight: they are suspect.
//! - Back-pressure leaves records with the client, which then fetches no more, and never leaves the group. Handlers may take as long as they like: a thread of its
//!   own keeps polling.
//! - A partition that moves to another process is given up when what is in flight of it is finished, or after the drain
//!   timeout; what finishes later is ignored here, comes again there, and is found to be a duplicate.
//! - The store learns how far each partition has come, once a second, after the group: it is never ahead of it. At an
//!   assignment, a group that is behind the store, a topic that ends below, or one where another message lies than the one
//!   that is remembered, halt the receiver: they mean a replay that nobody has allowed, or another topic.
//!
//! # Sending
//!
//! One idempotent producer with `acks=all`. Unroutable when the queue's topic is missing; Unknown when the brokers did not
//! confirm in time. An event without a topic has no subscriber.
//!
//! # Limits
//!
//! - A topic's retention also removes what was not handled. If that happened, receiving halts with an error.
//! - On an ordered endpoint a key's order is kept among its commands, and among its events of one type.
//! - Reply queues of a process that died stay behind, as topics with an hour of retention.
//! - With OAUTHBEARER no topics are made and no settings checked, and there are no reply queues: the library's client for
//!   that cannot be given a token.
//! - A record whose header has a name that is not UTF-8 is read by catching a panic of the client library: with
//!   `panic = "abort"` it ends the process.

mod cluster;
mod commit;
mod consumer_context;
mod decode;
mod encode;
mod error;
mod fingerprint;
mod headers;
mod in_flight;
mod metadata_context;
mod names;
mod oauth;
mod offset_committer;
mod offset_store_bridge;
mod offset_tracker;
mod options;
mod partition;
mod partition_queue;
mod publisher;
mod query_client;
mod receiver;
mod recreated_topics;
mod session;
mod shared;
mod start_offset;
mod subscriptions;
mod topic_partition;
mod topics;
mod transport;
mod url;

pub use oauth::OauthToken;
pub use options::{KafkaOptions, Sasl};
pub use transport::KafkaTransport;
