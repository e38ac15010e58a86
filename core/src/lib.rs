//! The words everyone in sagabus speaks, and the ports that stores and transports implement.
//!
//! - **Words**: [`Message`], [`Envelope`] with its [`Headers`], [`Context`], [`HandlerError`], [`Error`], [`Runtime`].
//! - **What a handled message did** is a value: the [`UnitOfWork`]. Handlers build it, a [`Store`] commits slices of it.
//! - **Ports**: [`Store`] (saga state, inbox, outbox, timers, dead letters), [`Queues`] (queues as tables),
//!   [`Transport`] (a broker, or queues), [`Route`] (a programming model).
//!
//! This crate knows no other crate of the workspace. Applications depend on `sagabus`, which re-exports what they need.

mod admin;
mod backoff;
mod codec;
mod context;
#[doc(hidden)]
pub mod crash;
mod endpoint_info;
mod envelope;
mod error;
mod handler_error;
mod headers;
mod id;
mod invocation_context;
mod lease;
mod lease_keeper;
mod limits;
mod message;
mod name;
mod offsets;
mod queues;
mod random;
mod route;
mod runtime;
#[doc(hidden)]
pub mod sabotage;
mod send_options;
mod store;
mod transaction;
mod transaction_deadline;
mod transport;
mod unit_of_work;

pub use admin::*;
pub use backoff::Backoff;
pub use codec::{BodyCodec, Codec};
pub use context::{Context, Effects, Incoming};
pub use endpoint_info::EndpointInfo;
pub use envelope::Envelope;
pub use error::{Error, ErrorKind};
pub use handler_error::{HandlerError, HandlerResultExt, Permanent};
pub use headers::{Headers, Intent, SagaAddress, UserHeader};
pub use id::{InstanceId, MessageId, NodeId, TimerId};
pub use invocation_context::InvocationContext;
pub use lease::{Fence, Lease, LeaseRequest, Leases, SHARDS, shard_of};
pub use lease_keeper::{LeaseKeeper, LeaseKeeperOptions, LeaseView};
pub use limits::Limits;
pub use message::Message;
pub use name::check_name;
pub use offsets::*;
pub use queues::{QueueRow, Queues};
pub use random::SeededRandom;
pub use route::{Decision, Decoded, Invocation, InvocationResult, NotFound, OnExisting, Route};
pub use runtime::{Runtime, Task, Timestamp};
pub use send_options::SendOptions;
pub use store::*;
pub use transaction::Transaction;
pub use transaction_deadline::TransactionDeadline;
pub use transport::*;
pub use unit_of_work::*;

/// What port methods return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
