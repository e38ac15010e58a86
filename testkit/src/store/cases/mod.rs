//! The cases, by area. Each says which invariant it guards.

pub mod atomicity;
pub mod gates;
