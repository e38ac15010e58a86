//! A message bus with sagas and exactly-once effects, on one SQLite file or a broker.
//!
//! What a handler does through the bus (saga state, rows of its own in the same database, outgoing messages, timers)
//! takes effect exactly once, through crashes, redeliveries and restarts. It is fast because it commits batches, not
//! messages.
//!
//! ```no_run
//! use sagabus::prelude::*;
//! use serde::{Deserialize, Serialize};
//! use std::time::Duration;
//!
//! #[derive(Message, Serialize, Deserialize)]
//! #[message(name = "shop.order-placed")]
//! struct OrderPlaced { order: u64, total: i64 }
//!
//! #[derive(Message, Serialize, Deserialize)]
//! #[message(name = "pay.capture")]
//! struct CapturePayment { order: u64, amount: i64 }
//!
//! #[derive(Message, Serialize, Deserialize)]
//! #[message(name = "shop.payment-due")]
//! struct PaymentDue;
//!
//! /// Sees an order from placement to payment.
//! #[derive(Default, Serialize, Deserialize)]
//! struct OrderSaga { order: u64 }
//!
//! impl Saga for OrderSaga {
//!     const NAME: &'static str = "order";
//!     type Key = u64;
//!     fn routes(r: &mut Routes<Self>) {
//!         r.started_by::<OrderPlaced>(|m| m.order).timeout::<PaymentDue>();
//!     }
//! }
//!
//! impl Handle<OrderPlaced> for OrderSaga {
//!     async fn handle(&mut self, m: OrderPlaced, ctx: &mut SagaContext) -> Result {
//!         self.order = m.order;
//!         ctx.send(CapturePayment { order: m.order, amount: m.total });
//!         ctx.timeout(Duration::from_secs(15 * 60), PaymentDue);
//!         Ok(())
//!     }
//! }
//!
//! impl Handle<PaymentDue> for OrderSaga {
//!     async fn handle(&mut self, _: PaymentDue, ctx: &mut SagaContext) -> Result {
//!         ctx.complete();
//!         Ok(())
//!     }
//! }
//!
//! async fn capture_payment(m: CapturePayment, _: &mut Context) -> Result {
//!     println!("captured {} for order {}", m.amount, m.order);
//!     Ok(())
//! }
//!
//! # async fn run() -> Result<(), Error> {
//! Endpoint::builder("shop")
//!     .transport("sqlite://shop.db")
//!     .saga::<OrderSaga>()
//!     .on(capture_payment)
//!     .run_until(shutdown_signal())
//!     .await
//! # }
//! ```
//!
//! # The four types that matter
//!
//! - [`Endpoint`]: a named queue with handlers and a store; any number of processes may run it.
//! - [`Saga`] with [`Handle`] per message: a struct that is the state of one business process, found by a correlation
//!   value, with timeouts. Plain handlers are functions ([`EndpointBuilder::on`]) or services ([`Consume`]).
//! - [`Context`] (and [`SagaContext`]): what a handler may do: `send`, `publish`, `reply`, `timeout`, `complete`, and its
//!   own SQL in the same transaction.
//! - [`Bus`]: sends from outside handlers, directly or in the caller's own transaction.
//!
//! # Where the rest is
//!
//! - What is promised, and under which assumptions: `docs/guarantees.md`. Why it is built so: `docs/design.md`.
//! - When handlers fail: [`Recoverability`], [`HandlerError`], and dead letters in [`Endpoint::admin`].
//! - Tests of your own handlers: `testing` (feature `testing`): `SagaTest` and `TestBus`, with virtual time.
//! - Stores, transports and their ports: [`store`], [`transport`], [`ports`].
//!
//! # Crate features
//!
//! | feature | brings |
//! |---|---|
//! | `sqlite` (default) | the SQLite store and its queues |
//! | `postgres` | the PostgreSQL store and its queues |
//! | `rabbitmq` | the RabbitMQ transport |
//! | `kafka` | the Kafka transport |
//! | `tls` | TLS for them |
//! | `testing` | `sagabus::testing` |

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod admin;
mod at_least_once;
mod bus;
mod endpoint;
mod engine;
mod shutdown;
#[cfg(feature = "testing")]
pub mod testing;

pub use bus::Bus;
pub use endpoint::{
    Endpoint, EndpointBuilder, Health, OpenUrl, RunningEndpoint, StoreSource, TransportSource, register_store,
    register_transport,
};
pub use engine::{Recoverability, Stats};
pub use sagabus_core::{
    Context, Error, ErrorKind, HandlerError, HandlerResultExt, Limits, Message, MessageId, NotFound, OnExisting,
    Permanent, Runtime, SendOptions, Timestamp,
};
pub use sagabus_macros::Message;
pub use sagabus_sagas::{Consume, Handle, Result, Routes, Saga, SagaContext};
pub use shutdown::shutdown_signal;

/// The ports, for authors of a store, a transport or a programming model.
pub use sagabus_core as ports;

/// The parts of a message as it travels: headers, intent, encoding.
pub mod message {
    pub use sagabus_core::{BodyCodec, Codec, Envelope, Headers, Intent, UserHeader};
}

/// The types behind handler declarations, for signatures of generic code.
pub mod handler {
    pub use sagabus_sagas::{ContinuedBy, HandlerFn, ServiceRoutes, StartedBy};
}

/// The stores, by value: for settings that a URL does not have.
pub mod store {
    pub use sagabus_outbox::memory;
    #[cfg(feature = "postgres")]
    pub use sagabus_outbox::postgres;
    #[cfg(feature = "sqlite")]
    pub use sagabus_outbox::sqlite;
}

/// The transports, by value.
pub mod transport {
    #[cfg(feature = "kafka")]
    pub use sagabus_transports::kafka;
    #[cfg(feature = "rabbitmq")]
    pub use sagabus_transports::rabbitmq;
    pub use sagabus_transports::{memory, sql};
}

/// The SQL crate whose connections `ctx.transaction::<Sqlite>()` and `::<Postgres>()` give, for users' own SQL.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use sagabus_outbox::sqlx;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use sagabus_outbox::TransactionExt;
#[cfg(feature = "postgres")]
pub use sagabus_outbox::postgres::Postgres;
#[cfg(feature = "sqlite")]
pub use sagabus_outbox::sqlite::Sqlite;

/// What a program with handlers needs: `use sagabus::prelude::*`.
pub mod prelude {
    #[cfg(feature = "postgres")]
    pub use crate::Postgres;
    #[cfg(feature = "sqlite")]
    pub use crate::Sqlite;
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub use crate::TransactionExt;
    pub use crate::{
        Bus, Consume, Context, Endpoint, Error, Handle, HandlerError, HandlerResultExt, Message, NotFound, OnExisting,
        Recoverability, Result, Routes, Saga, SagaContext, SendOptions, shutdown_signal,
    };
}
