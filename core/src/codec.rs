use crate::{Error, ErrorKind, Message, Result};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt, sync::Arc};

/// How an endpoint writes and reads bodies: JSON, or another encoding for the whole endpoint.
#[derive(Clone, Default)]
pub struct Codec(Option<Arc<dyn BodyCodec>>);

/// A custom encoding, expressed over JSON values: `encode` gets the message as a [`serde_json::Value`], `decode`
/// returns one. That keeps it object-safe without a second serialisation framework; the default JSON path does not go
/// through values.
pub trait BodyCodec: Send + Sync + 'static {
    /// The content type that marks bodies of this encoding, such as `application/cbor`.
    fn content_type(&self) -> &str;
    /// Writes a value.
    fn encode(&self, value: &serde_json::Value) -> Result<Vec<u8>>;
    /// Reads a value. Must refuse what it does not understand, and must not panic.
    fn decode(&self, body: &[u8]) -> Result<serde_json::Value>;
}

impl Codec {
    /// JSON, the default.
    pub fn json() -> Self {
        Self(None)
    }

    /// Another encoding.
    pub fn custom(codec: impl BodyCodec) -> Self {
        Self(Some(Arc::new(codec)))
    }

    /// The content type of what [`encode`](Self::encode) writes.
    pub fn content_type(&self) -> &str {
        self.0.as_ref().map_or("application/json", |c| c.content_type())
    }

    /// Encodes a message.
    pub fn encode<M: Message>(&self, message: &M) -> Result<Bytes> {
        self.encode_value(M::NAME, message)
    }

    /// Encodes any value; `what` names it in the error.
    pub fn encode_value<T: Serialize>(&self, what: &str, value: &T) -> Result<Bytes> {
        let failed = |e| Error::with_source(ErrorKind::Invalid, format!("encode {what}"), e);
        match &self.0 {
            None => Ok(Bytes::from(serde_json::to_vec(value).map_err(failed)?)),
            Some(codec) => Ok(Bytes::from(codec.encode(&serde_json::to_value(value).map_err(failed)?)?)),
        }
    }

    /// Decodes a body that claims to be an `M`. Bodies marked as JSON are read as JSON whatever the endpoint writes, so
    /// that an endpoint can change its encoding while messages are under way.
    pub fn decode<M: Message>(&self, content_type: &str, body: &[u8]) -> Result<M> {
        self.decode_value(M::NAME, content_type, body)
    }

    /// Decodes any value; `what` names it in the error.
    pub fn decode_value<T: DeserializeOwned>(&self, what: &str, content_type: &str, body: &[u8]) -> Result<T> {
        let failed = |e| Error::with_source(ErrorKind::Invalid, format!("decode {what}"), e);
        let base = content_type.split(';').next().unwrap_or_default().trim();
        if base == "application/json" || base.is_empty() || base.ends_with("+json") {
            return serde_json::from_slice(body).map_err(failed);
        }
        match &self.0 {
            Some(codec) if codec.content_type() == base => serde_json::from_value(codec.decode(body)?).map_err(failed),
            _ => Err(Error::invalid(format!(
                "decode {what}: content type {base:?} is not one this endpoint reads (it reads application/json{})",
                self.0.as_ref().map(|c| format!(" and {}", c.content_type())).unwrap_or_default()
            ))),
        }
    }
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Codec({})", self.content_type())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Reversed;
    impl BodyCodec for Reversed {
        fn content_type(&self) -> &str {
            "application/x-reversed"
        }
        fn encode(&self, value: &serde_json::Value) -> Result<Vec<u8>> {
            let mut text = value.to_string().into_bytes();
            text.reverse();
            Ok(text)
        }
        fn decode(&self, body: &[u8]) -> Result<serde_json::Value> {
            let mut text = body.to_vec();
            text.reverse();
            serde_json::from_slice(&text).map_err(|e| Error::with_source(ErrorKind::Invalid, "decode reversed", e))
        }
    }

    #[test]
    fn an_endpoint_may_change_its_encoding_while_messages_are_under_way() {
        let old = Codec::json().encode_value("n", &vec![1, 2]).unwrap();
        let codec = Codec::custom(Reversed);
        let new = codec.encode_value("n", &vec![1, 2]).unwrap();
        assert_ne!(old, new);
        assert_eq!(codec.decode_value::<Vec<u32>>("n", "application/json", &old).unwrap(), [1, 2]);
        assert_eq!(codec.decode_value::<Vec<u32>>("n", codec.content_type(), &new).unwrap(), [1, 2]);
        let error = Codec::json().decode_value::<Vec<u32>>("n", "application/x-reversed", &new).unwrap_err();
        assert!(error.to_string().contains("content type"));
    }
}
