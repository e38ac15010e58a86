//! Very many timers of very many sagas, all due at the same moment.

use super::{
    all,
    fixture::Fixture,
    handlers::{CAME, EARLY, Remind},
    until,
};
use crate::{
    args::Spec,
    measure::{Span, rss_mb},
    report::Side,
};
use anyhow::Result;
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

/// Sets them with one run of the endpoint, and has another one find them.
pub(super) async fn run(spec: &Spec) -> Result<Side> {
    let fixture = Fixture::open(spec).await?;
    fixture.prepare(spec).await?;
    let endpoint = fixture.endpoint(spec).build().await?;
    // setting them takes at most this long: 4,000 a second
    let room = Duration::from_secs(5) + Duration::from_micros(spec.messages * 250);
    let due = endpoint_now(&fixture).await?.plus(room);
    let keys: Vec<u64> = (0..spec.messages).collect();
    for chunk in keys.chunks(500) {
        all(endpoint.bus().send_all(chunk.iter().map(|key| Remind { key: *key, at: due.0 })).await?)?;
    }
    let running = endpoint.start().await?;
    let handled = async || running.stats().handled;
    until(spec.messages, handled, &running).await?;
    running.stop().await?;
    anyhow::ensure!(endpoint_now(&fixture).await? < due, "setting the timers took longer than {room:?}");

    let started = Instant::now();
    let endpoint = fixture.endpoint(spec).build().await?;
    let running = endpoint.start().await?;
    let start_seconds = started.elapsed().as_secs_f64();
    let rss_before = rss_mb();
    while endpoint_now(&fixture).await? < due {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let span = Span::start();
    let handled = async || running.stats().handled;
    until(spec.messages, handled, &running).await?;
    let mut side = Side::measured(&span, spec.messages, running.stats().commits);
    running.stop().await?;
    let came = CAME.load(Ordering::Relaxed);
    anyhow::ensure!(came >= spec.messages, "{came} of {} timers came", spec.messages);
    side.more.insert("start_seconds".into(), start_seconds);
    side.more.insert("rss_before_mb".into(), rss_before);
    side.more.insert("early".into(), EARLY.load(Ordering::Relaxed) as f64);
    Ok(side)
}

async fn endpoint_now(fixture: &Fixture) -> Result<sagabus::Timestamp> {
    Ok(fixture.store()?.now().await?)
}
