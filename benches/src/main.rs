//! What sagabus costs, beside the best program without it, in the same run. See `docs/performance.md`.
#![allow(clippy::disallowed_methods, reason = "a benchmark stands outside of the bus: it measures real time")]

#[cfg(feature = "jemalloc")]
#[global_allocator]
static GLOBAL: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[cfg(not(feature = "jemalloc"))]
#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod args;
mod baseline;
mod broker;
mod checks;
mod child;
mod engine;
mod feed;
mod files;
mod kafka;
mod latency;
mod measure;
mod payload;
mod postgres;
mod profile;
mod rabbit;
mod report;
mod verdict;

use args::{Command, Spec, What, Who};
use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    match Command::parse().what {
        What::Side { spec } => match side(&spec) {
            Ok(line) => {
                println!("{line}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        },
        what => checks::run(what),
    }
}

#[tokio::main]
async fn side(spec: &str) -> anyhow::Result<String> {
    let spec: Spec = serde_json::from_str(spec)?;
    if let Some(port) = spec.transport.as_deref().and_then(broker::port) {
        measure::watch_broker(port);
    }
    let side = match spec.who {
        Who::Engine => engine::run(&spec).await?,
        Who::Baseline => baseline::run(&spec).await?,
    };
    Ok(serde_json::to_string(&side)?)
}
