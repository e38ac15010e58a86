//! The tokens of deliveries.

use sagabus_core::Token;

/// The token of a row: its epoch holds the number of the shard lease and the shard, its position the row's id.
pub(super) fn token(lease: u64, shard: u16, id: i64) -> Token {
    Token { epoch: (lease << 16) | u64::from(shard), position: id.cast_unsigned() }
}

/// The id of the row.
pub(super) fn row_id(token: Token) -> i64 {
    token.position.cast_signed()
}

/// The shard of the row.
pub(super) fn shard(token: Token) -> u16 {
    u16::try_from(token.epoch & 0xffff).unwrap_or(u16::MAX)
}
