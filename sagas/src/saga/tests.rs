//! Routes run directly, without a store.

mod build;
mod contexts;
mod correlation;
mod model;
mod policies;
mod run;
mod states;
