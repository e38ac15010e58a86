//! What the conformance suite cannot see: plans, planted mismatches, locks, limits.

mod fixture;
mod mismatches;
mod opening;
mod own_sql;
mod plans;
mod sharing;
