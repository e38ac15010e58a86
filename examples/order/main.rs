//! An order saga with its payment and shipping services, on one SQLite file, in one process or several.
//!
//! ```sh
//! cargo run --example order              # watch it; kill it and start it again: it goes on where it was
//! sqlite3 order.db 'select * from orders; select * from ledger'
//! ```
//!
//! The saga (`saga.rs`) reserves the payment with a timeout, ships, captures the payment and confirms; when the payment
//! is declined or late, or the goods are out of stock, it undoes what was done. The services (`payment.rs`,
//! `shipping.rs`) keep a ledger. Whatever is killed when: a confirmed order has exactly one line each of `reserved`,
//! `captured` and `shipped`, and a cancelled one no `captured`, no `shipped`, and as many `released` as `reserved`.

#![allow(clippy::disallowed_methods, reason = "the list is for the library; a program that uses it has real time")]

mod check;
mod crash;
mod database;
mod endpoints;
mod event_log;
mod mail;
mod messages;
mod options;
mod payment;
mod place_order;
mod rows;
mod saga;
mod scenario;
mod shipping;
mod stop;
mod summary;

use database::Database;
use options::{HELP, Options, Role};
use sagabus::{RunningEndpoint, shutdown_signal};
use std::{error::Error, process::ExitCode, time::Duration};
use stop::Stop;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(text) => {
            eprintln!("error: {text}");
            return ExitCode::from(2);
        }
    };
    if let Err(text) = crash::arm(&options) {
        eprintln!("error: {text}");
        return ExitCode::from(2);
    }
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes.
fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}

#[tokio::main]
async fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    // the late payments are failures that belong to the story: RUST_LOG=sagabus=debug shows them, and much more
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().or_else(|_| "error".parse())?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    event_log::open(options.quiet, options.log.as_deref())?;

    let stop = Stop::on(shutdown_signal());
    let running = endpoints::start(options).await?;
    let pool = Database::open(&options.store).await?;
    let (placed, finished) = rows::progress(&pool).await?;
    if placed > 0 {
        event_log::tell(format_args!("{placed} orders are there, {finished} of them final: going on"));
    }
    let outcome = work(options, &running, &pool, &stop).await;
    // whatever happened, what is in flight is finished first
    for endpoint in &running {
        endpoint.stop().await?;
    }
    outcome?;
    if stop.is_wanted() {
        event_log::tell("stopped; start it again to go on");
        return Ok(true);
    }
    let dead = summary::dead_letters(&running).await?;
    let good = summary::print(options, &pool, &dead).await?;
    pool.close().await;
    Ok(good)
}

async fn work(
    options: &Options,
    running: &[RunningEndpoint],
    pool: &Database,
    stop: &Stop,
) -> Result<(), Box<dyn Error>> {
    if options.role.includes(Role::Place)
        && let Some(placer) = running.last()
    {
        place_order::place(&placer.bus(), pool, options, stop).await?;
    }
    // every process ends by itself when all orders are final, whoever did it
    while !stop.is_wanted() && rows::progress(pool).await?.1 < options.orders {
        let dead = summary::dead_letters(running).await?;
        if dead.iter().any(|letter| !summary::is_expected(letter)) {
            return Ok(());
        }
        stop.sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
