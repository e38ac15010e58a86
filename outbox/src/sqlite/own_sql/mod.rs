//! Handlers' own SQL: the writer lends its connection, inside a transaction that several handlers share.

mod lender;
mod transaction;

pub(crate) use transaction::OwnTransaction;
