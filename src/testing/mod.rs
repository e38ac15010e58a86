//! Tests of your own handlers, with virtual time: [`SagaTest`] for one saga, [`TestBus`] for whole endpoints.

mod saga_test;
mod test_bus;
#[cfg(test)]
mod tests;

pub use saga_test::{Assertion, SagaTest};
pub use test_bus::TestBus;
