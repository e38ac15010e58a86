//! Removes from a broker what a run has left there: a broker has no directory that could be thrown away.

use anyhow::Result;

/// All endpoints of the workload, those of the order example, and the poisoned one.
#[cfg(feature = "rabbitmq")]
const ENDPOINTS: [&str; 8] = ["chaos", "ledger", "line", "shop", "payment", "shipping", "placer", "poison"];

/// Deletes what begins with the URL's `prefix`. A URL of another kind, or without prefix, has nothing to remove.
pub async fn remove(url: &str) -> Result<()> {
    let Some((base, query)) = url.split_once('?') else { return Ok(()) };
    let Some(prefix) = query.split('&').find_map(|pair| pair.strip_prefix("prefix=")) else { return Ok(()) };
    match base.split(':').next() {
        #[cfg(feature = "rabbitmq")]
        Some("amqp" | "amqps") => remove_from_rabbitmq(base, prefix).await,
        #[cfg(feature = "kafka")]
        Some("kafka") => remove_from_kafka(base, prefix).await,
        _ => anyhow::bail!("this build knows no broker to remove {prefix} from"),
    }
}

#[cfg(feature = "rabbitmq")]
async fn remove_from_rabbitmq(base: &str, prefix: &str) -> Result<()> {
    use anyhow::Context as _;
    use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
    let connection = lapin::Connection::connect(base, lapin::ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let own = ["", ".error", ".unreadable"].map(ToOwned::to_owned);
    let partitions = (0..8).map(|number| format!(".p{number:02}"));
    let suffixes: Vec<String> = own.into_iter().chain(partitions).collect();
    for endpoint in ENDPOINTS {
        for suffix in &suffixes {
            let name = format!("{prefix}{endpoint}{suffix}");
            let deleted = channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await;
            deleted.with_context(|| format!("delete the queue {name}"))?;
        }
    }
    let list = format!("{prefix}sagabus.endpoints");
    channel.queue_delete(list.into(), QueueDeleteOptions::default()).await.context("delete the list of endpoints")?;
    for exchange in ["sagabus.events", "sagabus.events.queues", "sagabus.keyed", "sagabus.keyed.queues"] {
        let name = format!("{prefix}{exchange}");
        let deleted = channel.exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default()).await;
        deleted.with_context(|| format!("delete the exchange {name}"))?;
    }
    connection.close(0, "done".into()).await?;
    Ok(())
}

/// Every topic; the groups' offsets go with them.
#[cfg(feature = "kafka")]
async fn remove_from_kafka(base: &str, prefix: &str) -> Result<()> {
    use anyhow::Context as _;
    use rdkafka::{
        ClientConfig,
        admin::{AdminClient, AdminOptions},
        client::DefaultClientContext,
        consumer::{BaseConsumer, Consumer as _},
    };
    use std::time::Duration;
    let patience = Duration::from_secs(10);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", base.trim_start_matches("kafka://").trim_end_matches('/'));
    let consumer: BaseConsumer = config.create()?;
    let there = consumer.fetch_metadata(None, patience).context("list the topics")?;
    let names: Vec<&str> = there.topics().iter().map(|topic| topic.name()).filter(|t| t.starts_with(prefix)).collect();
    if names.is_empty() {
        return Ok(());
    }
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    for deleted in admin.delete_topics(&names, &AdminOptions::new().request_timeout(Some(patience))).await? {
        deleted.map_err(|(topic, code)| anyhow::anyhow!("delete the topic {topic}: {code}"))?;
    }
    Ok(())
}
