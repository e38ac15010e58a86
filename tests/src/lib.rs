//! The programs that `cargo xtask` crashes, stops and feeds with rubbish, and what they share.
//!
//! They are real programs on sagabus's public API. What judges them is in `xtask/src/checks` and shares no code with
//! them, nor with what they use.

#![allow(missing_debug_implementations, reason = "a tool of this repository, not a public API")]
#![allow(
    missing_docs,
    clippy::disallowed_methods,
    reason = "programs outside of the bus: real time, real tasks; nobody reads their rustdoc"
)]

pub mod chaos;
pub mod program;
