//! Queues of one case on the RabbitMQ broker that `SAGABUS_RABBITMQ_URL` names.

use super::{TestEnvironment, server};
use lapin::{Channel, Connection, ConnectionProperties, options::QueueDeclareOptions, types::FieldTable};
use sagabus::{
    Runtime,
    ports::Transport,
    transport::rabbitmq::{RabbitMqOptions, RabbitMqTransport},
};
use std::sync::Arc;

impl TestEnvironment {
    /// Two partitions are enough for two instances, and soon made.
    pub(super) fn rabbitmq_url(&self) -> String {
        let url = server("SAGABUS_RABBITMQ_URL", "rabbitmq");
        let join = if url.contains('?') { '&' } else { '?' };
        format!("{url}{join}prefix={}.&partitions=2", self.id)
    }

    pub(super) async fn rabbitmq(&self) -> Arc<dyn Transport> {
        let options = RabbitMqOptions::new(Runtime::system());
        Arc::new(RabbitMqTransport::connect(&self.rabbitmq_url(), options).await.unwrap())
    }

    async fn channel(&self) -> Channel {
        let url = server("SAGABUS_RABBITMQ_URL", "rabbitmq");
        let connect = || async { Connection::connect(&url, ConnectionProperties::default()).await.unwrap() };
        self.rabbitmq.get_or_init(connect).await.create_channel().await.unwrap()
    }

    /// Without those that are with a consumer.
    pub(super) async fn waiting_on_rabbitmq(&self, queue: &str) -> u64 {
        let mut waiting = 0;
        for name in ["", ".p00", ".p01"].map(|end| format!("{}.{queue}{end}", self.id)) {
            // a channel is closed by the answer that there is no such queue
            let channel = self.channel().await;
            let options = QueueDeclareOptions::durable().passive();
            if let Ok(found) = channel.queue_declare(name.into(), options, FieldTable::default()).await {
                waiting += u64::from(found.message_count());
                channel.close(200, "".into()).await.unwrap();
            }
        }
        waiting
    }

    pub(super) async fn remove_from_rabbitmq(&self) {}
}
