//! Handlers' own SQL: transactions that are lent to handlers, and the commit that they share.

mod group_commit;
mod lender;
mod sharing;
mod transaction;

pub(super) use sharing::Sharing;
