//! A RabbitMQ broker (3.10 and later) as a transport.
//!
//! # What lies on the broker
//!
//! | what | is |
//! |---|---|
//! | `<endpoint>` | the endpoint's queue: quorum, with a delivery limit and a dead-letter target |
//! | `<endpoint>.error` | what the broker gave up on; the endpoint drains it into its own dead letters, with the reason |
//! | `<endpoint>.unreadable` | what could not even be read from there: for an operator |
//! | `<endpoint>.p00` … | ordered endpoints: the partitions, quorum queues with a single active consumer |
//! | `sagabus.endpoints` | one message: which endpoints there are and what they have subscribed to |
//! | `sagabus.events` | topic exchange: events without order key; the routing key is the message type |
//! | `sagabus.keyed` | topic exchange: what has an order key; `q.<endpoint>.sNN` or `t.<type>.sNN`, NN the shard |
//! | `sagabus.events.queues`, `sagabus.keyed.queues` | behind these two: the topic exchanges to which the queues are bound |
//! | `sagabus.delay.00` … `.27`, `.out`, `.undeliverable` | once somebody sends with a delay: see `delays` |
//! | a reply queue | exclusive to the connection, gone with it |
//!
//! Commands go through the default exchange, with `mandatory`. All names begin with the prefix, where one is set. Declaring
//! is idempotent; a queue that exists with other settings is an error that says so, and nothing is ever deleted.
//!
//! # How a message looks
//!
//! | ours | AMQP |
//! |---|---|
//! | message id | property `message-id` (a foreign one that is no UUID becomes a UUIDv5 of it; none: handled at least once) |
//! | message type | property `type`; missing on what came through `sagabus.events`: the routing key |
//! | content type, correlation id, reply address | properties `content-type` (missing: JSON), `correlation-id`, `reply-to` |
//! | intent | header `sagabus-intent`: `event`, `reply`, `timeout`; missing: `command` |
//! | sent at, cause, conversation, whether for the first time | property `app-id`: `sagabus;sent-at=<microseconds>;cause=<id>;conversation=<id>;first` |
//! | what of these is missing | the property `timestamp` (seconds); none; the cause, or else the message id; perhaps not |
//! | the same, from whoever likes that better | headers `sagabus-sent-at`, `sagabus-causation-id`, `sagabus-conversation-id`, `sagabus-first`, or one header `sagabus` |
//! | expires at, attempts | headers `sagabus-expires-at` (microseconds), `sagabus-attempts` |
//! | order key | header `sagabus-order-key` |
//! | saga, originator | headers `sagabus-saga`, `sagabus-originator` (JSON) |
//! | trace context | headers `traceparent`, `tracestate` |
//! | user headers | headers of the same name; text, numbers and booleans are read, other values are left out |
//! | which of them propagate | header `sagabus-propagate`: their names |
//! | names that mean something else in AMQP (`CC`, `x-…`, …) | header `sagabus-user` (JSON) |
//!
//! So any client can send: to the queue, or to `sagabus.events` with the type as the routing key, with property `type` and
//! a JSON body. What cannot be understood becomes a dead letter with the reason.
//!
//! # Failures
//!
//! - A send is Done when the broker confirmed it: a quorum queue has it on disk. Unroutable when the broker returned it.
//!   Retry when it refused (full, or out of memory or disk: then the connection is blocked and nothing is sent). Unknown
//!   when the connection broke, or its confirm, or that of another message sent with or before it on the channel, did not come
//!   in time: it may be there, and is repeated under the same id.
//! - A lost connection is made again, with back-off; what was in flight comes again as suspect, and its old tokens are
//!   ignored. RabbitMQ marks what was returned by a clean stop the same way, so that is suspect too.
//! - Everything is sent as `mandatory`. What comes back is looked up in the list of endpoints: if somebody should have got
//!   it, exchanges and bindings are made again, for all endpoints, and it is sent again. The exchanges that are published to
//!   are connected to those with the queues last, so an event never reaches only those that are bound already. A queue that
//!   is missing is waited for, until its endpoint declares it or is [retired](RabbitMqTransport::retire).
//! - What is returned waits in this process, so that infrastructure failures do not count towards the delivery limit.
//! - On an ordered endpoint a partition has one consumer, and the next one begins when that one's channel ends. A paused
//!   process may wake up after it was replaced and still run what it has in flight. That does no harm to order: both run a
//!   key's messages one after another, a message commits once (the inbox is its gate), and the later copy is found to be
//!   a duplicate; so neither can commit a message before its predecessor is committed. There is no fence.
//!
//! # Limits
//!
//! 16 MiB per message; 64 KiB of headers. The first process to start owns all partitions of an ordered endpoint until it
//! stops. Delays are the store's; those without one have 28 levels of queues on the broker, which keep whole seconds.

mod acks;
mod connection;
mod decode;
mod delay_topology;
mod delayed_send;
mod encode;
mod endpoint_registry;
mod error;
mod frame_filter;
mod frame_repair;
mod headers;
mod in_flight;
mod names;
mod options;
mod publish_channel;
mod publisher;
mod received;
mod receiver;
mod session;
mod shared;
mod topology;
mod topology_lock;
mod topology_manager;
mod transport;

pub use options::RabbitMqOptions;
pub use transport::RabbitMqTransport;
