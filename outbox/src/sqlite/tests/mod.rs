//! What the conformance suite cannot see: plans, planted mismatches, locks, limits.

mod bed;
mod mismatches;
mod opening;
mod own;
mod plans;
mod sharing;
