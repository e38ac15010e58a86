//! Judges of a run.
