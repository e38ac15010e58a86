//! Handlers without state of their own on the bus: services and functions.

mod function;
mod route;
mod service;
#[cfg(test)]
mod tests;

pub use function::{HandlerFn, function_route};
pub use service::{Consume, ServiceRoutes, service_routes};
