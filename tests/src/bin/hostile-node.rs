//! An endpoint that is fed with rubbish: handlers that are strict about what they take, and handlers that misbehave.
#![allow(clippy::disallowed_methods, reason = "a program outside of the bus")]

use clap::Parser;
use sagabus::{NotFound, ports::Result as BusResult, prelude::*, sqlx};
use sagabus_tests::{
    chaos::effects::{self, effect},
    program,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

#[derive(Parser)]
struct Args {
    /// Where the messages go
    #[arg(long)]
    transport: String,
    /// Where state lies
    #[arg(long)]
    store: String,
    /// The endpoint's name
    #[arg(long, default_value = "victim")]
    endpoint: String,
    /// Only create the tables
    #[arg(long)]
    init: bool,
}

/// What any other message is: it must always get through.
#[derive(Message, Serialize, Deserialize)]
#[message(name = "hostile.ping")]
struct Ping {
    n: u64,
}

/// Takes a few types, and anything at all in `any`.
#[derive(Message, Serialize, Deserialize)]
#[message(name = "hostile.typed")]
struct Typed {
    a: u64,
    b: Color,
    c: i32,
    #[serde(default)]
    d: f64,
    #[serde(default)]
    any: serde_json::Value,
    #[serde(default)]
    text: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Color {
    Red,
    Green,
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "hostile.open")]
struct Open {
    key: String,
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "hostile.poke")]
struct Poke {
    key: String,
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "hostile.tock")]
struct Tock;

#[derive(Message, Serialize, Deserialize)]
#[message(name = "hostile.ask")]
struct Ask {}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "hostile.answer")]
struct Answer {}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "hostile.boom")]
struct Boom {
    how: String,
}

#[derive(Default, Serialize, Deserialize)]
struct Account {
    pokes: u64,
}

impl Saga for Account {
    const NAME: &'static str = "account";
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Open>(|m| m.key.clone())
            .continued_by::<Poke>(|m| m.key.clone())
            .on_not_found(NotFound::DeadLetter)
            .timeout::<Tock>();
    }
}

impl Handle<Open> for Account {
    async fn handle(&mut self, m: Open, ctx: &mut SagaContext) -> Result {
        effect(ctx, "opened", &m.key, 0, None).await
    }
}

impl Handle<Poke> for Account {
    async fn handle(&mut self, m: Poke, ctx: &mut SagaContext) -> Result {
        self.pokes += 1;
        effect(ctx, "poked", &m.key, self.pokes, None).await
    }
}

impl Handle<Tock> for Account {
    async fn handle(&mut self, _: Tock, ctx: &mut SagaContext) -> Result {
        let key = ctx.saga_key().to_owned();
        effect(ctx, "tocked", &key, 0, None).await
    }
}

async fn ping(m: Ping, ctx: &mut Context) -> Result {
    effect(ctx, "ping", "", m.n, None).await
}

async fn typed(m: Typed, ctx: &mut Context) -> Result {
    effect(ctx, "typed", &m.text, m.a, None).await
}

async fn ask(_: Ask, ctx: &mut Context) -> Result {
    ctx.reply(Answer {});
    effect(ctx, "asked", "", u64::from(ctx.attempts()), None).await
}

async fn boom(m: Boom, ctx: &mut Context) -> Result {
    static HELD: AtomicBool = AtomicBool::new(false);
    match m.how.as_str() {
        "panic" => panic!("as it was told"),
        "exit" => std::process::exit(3),
        "abort" => std::process::abort(),
        // what no allocator gives: the process aborts
        "alloc" => drop(std::hint::black_box(Vec::<u8>::with_capacity(1 << 60))),
        "block" => std::thread::sleep(Duration::from_secs(3)),
        "hold" if !HELD.swap(true, Ordering::SeqCst) => {
            effect(ctx, "held", "", 1, None).await?;
            tokio::time::sleep(Duration::from_secs(6)).await;
        }
        "secret" => {
            return Err(HandlerError::new("no password=hunter2 in here, \u{1b}[31m<script>alert(1)</script>\r\nX: y"));
        }
        "long" => return Err(HandlerError::permanent("x".repeat(4 << 20))),
        _ => {}
    }
    effect(ctx, "boom", &m.how, 0, None).await
}

async fn build(args: &Args) -> BusResult<Endpoint> {
    let policy = Recoverability {
        immediate: 1,
        pause: Duration::from_millis(2),
        delays: vec![Duration::from_millis(30)],
        deaths: 2,
        // hundreds of failures in a row are what this is about
        slow_down_after: u32::MAX,
        ..Recoverability::default()
    };
    Endpoint::builder(args.endpoint.as_str())
        .transport(args.transport.as_str())
        .store(args.store.as_str())
        .lease(Duration::from_millis(800))
        .recoverability(policy)
        .saga::<Account>()
        .on(ping)
        .on(typed)
        .on(ask)
        .on(boom)
        .build()
        .await
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    program::log();
    let args = Args::parse();
    let endpoint = build(&args).await?;
    {
        use sqlx::{Connection as _, Executor as _};
        let path = args.store.trim_start_matches("sqlite://");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(10));
        let mut connection = sqlx::SqliteConnection::connect_with(&options).await?;
        connection.execute(effects::SQLITE).await?;
        connection.close().await?;
    }
    if args.init {
        return Ok(());
    }
    let running = endpoint.start().await?;
    program::say(&json!({ "ready": true }));
    program::terminated().await;
    let stats = running.stats();
    running.stop().await?;
    program::say(&json!({ "dropped": stats.dropped }));
    Ok(())
}
