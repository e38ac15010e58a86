//! Sends the chaos workload. Its log is the oracle of a run: each line is on the disk before what it announces happens.
#![allow(clippy::disallowed_methods, reason = "a program outside of the bus")]

use clap::Parser;
use sagabus::{Bus, MessageId};
use sagabus_tests::{
    chaos::{nodes::Place, plan::plan},
    program::{self, SyncedLog},
};
use serde_json::json;
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Mutex, watch};

/// How long a server may be away: a broker that was killed reads its logs again, on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    place: Place,
    /// How many messages; without end if 0
    #[arg(long)]
    messages: u64,
    /// Milliseconds between two messages
    #[arg(long, default_value_t = 0)]
    pace_ms: u64,
    /// The log
    #[arg(long)]
    log: PathBuf,
    /// How many send at the same time
    #[arg(long, default_value_t = 1)]
    senders: u64,
    /// Keys of the sagas
    #[arg(long, default_value_t = 3)]
    keys: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    program::log();
    let args = Args::parse();
    let endpoint = args.place.generator().build().await?;
    let log = Arc::new(Mutex::new(SyncedLog::append(&args.log)?));
    let (stop, stopped) = watch::channel(false);
    program::say(&json!({ "ready": true }));
    let mut senders = Vec::new();
    for at in 0..args.senders {
        let sender = Sender {
            bus: endpoint.bus(),
            log: log.clone(),
            stopped: stopped.clone(),
            pace: Duration::from_millis(args.pace_ms),
            keys: args.keys,
            lanes: 2 * args.senders,
        };
        senders.push(tokio::spawn(sender.rounds(at, args.senders, args.messages)));
    }
    tokio::spawn(async move {
        program::terminated().await;
        stop.send_replace(true);
    });
    let mut sent = 0;
    for sender in senders {
        sent += sender.await??;
    }
    program::say(&json!({ "sent": sent }));
    Ok(())
}

/// One of those who send at the same time. What must keep its order is sent by the same one.
struct Sender {
    bus: Bus,
    log: Arc<Mutex<SyncedLog>>,
    stopped: watch::Receiver<bool>,
    pace: Duration,
    keys: u64,
    lanes: u64,
}

impl Sender {
    /// Every so-manieth round of ten messages. A round is always finished: a torn pair would wait for ever.
    async fn rounds(mut self, first: u64, step: u64, messages: u64) -> anyhow::Result<u64> {
        let (mut round, mut sent) = (first, 0);
        while (messages == 0 || round * 10 < messages) && !*self.stopped.borrow() {
            for n in round * 10..round * 10 + 10 {
                if messages == 0 || n < messages {
                    // a stop ends the pauses; if it is not watched any more, that is as good
                    let _ = tokio::time::timeout(self.pace, self.stopped.wait_for(|stopped| *stopped)).await;
                    self.send(n).await?;
                    sent += 1;
                }
            }
            round += step;
        }
        Ok(sent)
    }

    async fn send(&self, n: u64) -> anyhow::Result<()> {
        let planned = plan(n, self.keys, self.lanes);
        let id = MessageId(uuid::Uuid::now_v7());
        let mut line = planned.log.clone();
        line["op"] = "try".into();
        line["n"] = n.into();
        line["id"] = id.to_string().into();
        self.log.lock().await.write(&line)?;
        let started = Instant::now();
        while let Err(error) = planned.deliver(&self.bus, id).await {
            // the same id again, until it is known to be there: the oracle has nothing unknown then
            anyhow::ensure!(error.is_unknown() || error.is_transient(), "sending {n}: {error:?}");
            anyhow::ensure!(started.elapsed() < PATIENCE, "sending {n} for {PATIENCE:?}: {error:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.log.lock().await.write(&json!({ "op": "ok", "n": n }))?;
        if planned.again {
            // as somebody does who did not get the answer; it may fail, it must not take effect twice
            let _ = planned.deliver(&self.bus, id).await;
        }
        Ok(())
    }
}
