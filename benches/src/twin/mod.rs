//! The best program without a framework: same file format family, same guarantees, nothing general.
//!
//! One task reads ahead, decodes, loads the states and runs the handler; another commits. What is computed and not yet
//! committed is kept by key, so that reading need not wait for the commit; the version compare in the commit proves it.

mod joined;
mod sqlite;

pub(crate) use joined::run;
