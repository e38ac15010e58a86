use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map($name)
            }
        }
    };
}

id!(
    /// Identifies a message for as long as it lives: through retries, redeliveries, the relay and the dead letters.
    ///
    /// Ours are UUIDv7. A foreign id that is no UUID is mapped to a UUIDv5 of its text, always to the same one.
    MessageId
);
id!(
    /// One life of a saga. A saga that is started again under the same key after it completed has another instance id,
    /// so that timers, replies and stale writes of the old life never reach the new one.
    InstanceId
);
id!(
    /// One running endpoint in one process, from start to stop.
    NodeId
);
id!(
    /// A timeout that a saga has asked for.
    TimerId
);

const FOREIGN: Uuid = Uuid::from_u128(0x6e1a_54c7_0f7b_5d0c_9d3e_2b8e_6c15_aa01);

impl MessageId {
    /// The id for a foreign identifier: itself if it is a UUID, else a UUIDv5 of its text.
    pub fn from_foreign(text: &str) -> Self {
        Self(text.parse().unwrap_or_else(|_| Uuid::new_v5(&FOREIGN, text.as_bytes())))
    }

    /// The day (since 1970) that a UUIDv7 carries, if this is one. Inbox rows are kept by this day.
    pub fn day(&self) -> Option<i64> {
        if self.0.get_version_num() != 7 {
            return None;
        }
        let millis = i64::try_from(self.0.as_u128() >> 80).ok()?;
        Some(millis / 86_400_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_ids_are_stable() {
        assert_eq!(MessageId::from_foreign("order-1"), MessageId::from_foreign("order-1"));
        assert_ne!(MessageId::from_foreign("order-1"), MessageId::from_foreign("order-2"));
        let own = MessageId(crate::Runtime::system().uuid());
        assert_eq!(MessageId::from_foreign(&own.to_string()), own);
        assert_eq!(MessageId::from_foreign("x").day(), None);
        assert!(own.day().is_some_and(|d| d > 20_000));
    }
}
