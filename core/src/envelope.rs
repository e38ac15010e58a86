use crate::{Error, Headers, Limits, Result};
use bytes::Bytes;

/// A message as it travels: headers and an encoded body. Cloning is cheap for the body (it is shared).
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// What travels with the body. Boxed: an envelope changes hands a dozen times on its way.
    pub headers: Box<Headers>,
    /// The body, encoded as the content type says.
    pub body: Bytes,
}

impl Envelope {
    /// Puts headers and body together.
    pub fn new(headers: Headers, body: impl Into<Bytes>) -> Self {
        Self { headers: Box::new(headers), body: body.into() }
    }

    /// Refuses what is larger than the limits, naming the size and the limit.
    pub fn check(&self, limits: &Limits) -> Result<()> {
        self.headers.check(limits)?;
        if self.body.len() > limits.body {
            return Err(Error::invalid(format!(
                "the body of {} has {} bytes, {} are allowed",
                self.headers.message_type,
                self.body.len(),
                limits.body
            )));
        }
        Ok(())
    }
}
