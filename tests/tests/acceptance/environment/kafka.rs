//! Topics of one case on the Kafka broker that `SAGABUS_KAFKA_URL` names.

use super::{TestEnvironment, server};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use sagabus::{
    Runtime,
    ports::Transport,
    transport::kafka::{KafkaOptions, KafkaTransport},
};
use std::{sync::Arc, time::Duration};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

impl TestEnvironment {
    fn kafka_server() -> String {
        server("SAGABUS_KAFKA_URL", "kafka").trim_start_matches("kafka://").trim_end_matches('/').to_string()
    }

    fn kafka_prefix(&self) -> String {
        format!("{}.", self.id)
    }

    /// Two partitions are enough for two instances, and soon made.
    pub(super) fn kafka_url(&self) -> String {
        format!("kafka://{}/?prefix={}&partitions=2&session_timeout=6", Self::kafka_server(), self.kafka_prefix())
    }

    pub(super) async fn kafka(&self) -> Arc<dyn Transport> {
        let options = KafkaOptions::new(Runtime::system());
        Arc::new(KafkaTransport::connect(&self.kafka_url(), options).await.unwrap())
    }

    pub(super) async fn waiting_on_kafka(&self, queue: &str) -> u64 {
        let connect = || async {
            KafkaTransport::connect(&self.kafka_url(), KafkaOptions::new(Runtime::system())).await.unwrap()
        };
        self.kafka.get_or_init(connect).await.backlog(queue).await.unwrap()
    }

    pub(super) async fn remove_from_kafka(&self) {
        let prefix = self.kafka_prefix();
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", Self::kafka_server()).create().unwrap();
        let metadata = admin.inner().fetch_metadata(None, ANSWER_TIMEOUT).unwrap();
        let topics: Vec<&str> =
            metadata.topics().iter().map(|topic| topic.name()).filter(|name| name.starts_with(&prefix)).collect();
        if !topics.is_empty() {
            admin.delete_topics(&topics, &AdminOptions::new()).await.unwrap();
        }
    }
}
