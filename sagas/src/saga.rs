//! The saga model: state, handlers, routes.

mod context;
mod correlate;
mod definition;
mod kind;
mod origin;
mod policy;
mod route;
mod routes;
mod state;
#[cfg(test)]
mod tests;

pub use context::SagaContext;
pub use definition::{Handle, Saga};
pub use routes::{ContinuedBy, Routes, StartedBy, saga_routes};
