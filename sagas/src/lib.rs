//! The programming models of sagabus: sagas, and plain handlers.
//!
//! - **Sagas**: a struct is the state; [`Handle`] per message; [`Saga::routes`] says which message starts it, which
//!   continue it, and which are its timeouts. A saga decides; it takes no dependencies.
//! - **Services**: a struct with shared state and [`Consume`] per message. Services act.
//! - **Functions**: `async fn(M, &mut Context) -> Result`.
//!
//! Each (handler, message) pair becomes a [`Route`](sagabus_core::Route), through which the endpoint runs it without
//! knowing its types. [`Handlers`] collects and checks them.
//!
//! Applications depend on `sagabus`, which re-exports what they need.

mod handlers;
mod names;
mod plain;
mod saga;

pub use handlers::Handlers;
pub use plain::{Consume, HandlerFn, ServiceRoutes, function_route, service_routes};
pub use saga::{ContinuedBy, Handle, Routes, Saga, SagaContext, StartedBy, saga_routes};

/// What handlers return: any error converts with `?` and is retried, unless `.permanent()` says otherwise.
pub type Result<T = (), E = sagabus_core::HandlerError> = std::result::Result<T, E>;
