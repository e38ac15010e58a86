//! The memory store: the reference model.
