//! The names of topics and groups on the cluster.

use sagabus_core::{Error, Result};

/// The length of the longest name that Kafka takes for a topic, in bytes.
const MAX_TOPIC_NAME_LENGTH: usize = 249;

/// The prefix that keeps the systems on one cluster apart, and the names made with it.
///
/// Our names may hold `:` and `/`, a topic's may not; and Kafka refuses topics that differ in `.` and `_` only. So `_`
/// introduces an escape: `__` for itself, `_c` for the colon, `_s` for the slash.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) prefix: String,
}

impl Names {
    /// Where an endpoint's commands and replies go.
    pub(super) fn queue(&self, queue: &str) -> Result<String> {
        self.topic("cmd", queue)
    }

    /// Where events of a type go.
    pub(super) fn event(&self, kind: &str) -> Result<String> {
        self.topic("evt", kind)
    }

    /// The log of an endpoint's subscriptions.
    pub(super) fn subscriptions(&self, queue: &str) -> Result<String> {
        self.topic("sub", queue)
    }

    /// The consumer group of an endpoint.
    pub(super) fn group(&self, queue: &str) -> String {
        format!("{}{queue}", self.prefix)
    }

    fn topic(&self, kind: &str, name: &str) -> Result<String> {
        let mut topic = format!("{}{kind}.", self.prefix);
        for c in name.chars() {
            match c {
                '_' => topic.push_str("__"),
                ':' => topic.push_str("_c"),
                '/' => topic.push_str("_s"),
                c => topic.push(c),
            }
        }
        if topic.len() > MAX_TOPIC_NAME_LENGTH {
            return Err(Error::invalid(format!(
                "the topic for {name} would have a name of {} bytes, kafka takes {MAX_TOPIC_NAME_LENGTH}",
                topic.len()
            )));
        }
        Ok(topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_names_are_different_topics() {
        let names = Names { prefix: "sagabus.".into() };
        assert_eq!(names.queue("shop.orders").unwrap(), "sagabus.cmd.shop.orders");
        assert_eq!(names.event("a_b:c/d").unwrap(), "sagabus.evt.a__b_cc_sd");
        let all = ["a_c", "a:", "a/", "a__", "a_", "a.b", "a_b"];
        let topics: std::collections::BTreeSet<_> = all.iter().map(|name| names.queue(name).unwrap()).collect();
        assert_eq!(topics.len(), all.len());
        assert!(names.queue(&"_".repeat(128)).unwrap_err().is_invalid());
    }
}
