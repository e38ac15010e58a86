use bytes::Bytes;
use sagabus_core::{Headers, SagaAddress};
use serde::{Deserialize, Serialize};

/// Who started a saga: where a later reply goes. Stored with the saga, so that any of its handlers can answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Origin {
    #[serde(rename = "reply")]
    pub(crate) reply_to: String,
    #[serde(rename = "corr")]
    pub(crate) correlation: String,
    #[serde(rename = "from", default, skip_serializing_if = "Option::is_none")]
    pub(crate) saga: Option<SagaAddress>,
}

impl Origin {
    /// Of a starting message; `None` if it names no place for replies.
    pub(crate) fn of(headers: &Headers) -> Option<Self> {
        Some(Self {
            reply_to: headers.reply_to.clone()?,
            correlation: headers.correlation_id.clone().unwrap_or_else(|| headers.message_id.to_string()),
            saga: headers.originator.clone(),
        })
    }

    pub(crate) fn encode(&self) -> Result<Bytes, serde_json::Error> {
        serde_json::to_vec(self).map(Bytes::from)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}
