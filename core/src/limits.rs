/// What an endpoint accepts. Larger messages are refused by the sender with an error, and dead-lettered by a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Largest body in bytes (default 1 MiB).
    pub body: usize,
    /// Largest size of all headers together in bytes (default 16 KiB).
    pub headers: usize,
    /// Most user headers on one message (default 64).
    pub header_count: usize,
    /// Longest correlation value in bytes (default 255).
    pub key: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { body: 1 << 20, headers: 16 << 10, header_count: 64, key: 255 }
    }
}

impl Limits {
    /// Deepest nesting of a JSON body. It is serde_json's own bound and cannot be raised.
    pub const JSON_DEPTH: usize = 128;
}
