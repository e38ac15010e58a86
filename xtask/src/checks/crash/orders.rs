//! The order example, killed at a point and started again, judged by its rows as anyone can read them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::points::Point;
use crate::checks::fixture::db::Db;
use crate::checks::fixture::environment::Layout;
use crate::checks::fixture::judge::Judgement;
use crate::checks::fixture::programs::Programs;
use crate::checks::fixture::signals::was_killed;
use crate::proc::{Proc, tail};

/// With every second order failing in one way or another, and the default timeouts.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs it until it ends by itself; whether the point was reached, and what came out.
pub fn run(
    point: &Point,
    nth: u64,
    layout: Layout,
    orders: u64,
    programs: &Programs,
    dir: &Path,
) -> Result<(bool, Judgement)> {
    let url = |name: &str| format!("sqlite://{}", dir.join(name).display());
    let command = || -> Result<Command> {
        let mut command = Command::new(programs.path("order")?);
        command.args(["--store", &url("shop.db"), "--orders", &orders.to_string(), "--pace", "5"]);
        if layout == Layout::Split {
            command.args(["--transport", &url("bus.db")]);
        }
        command.arg("--log").arg(dir.join("generator.jsonl")).env("RUST_BACKTRACE", "0");
        Ok(command)
    };
    let log = dir.join("crash.txt");
    let mut victim = command()?;
    victim.args(["--crash-at", &format!("{}:{nth}:kill", point.name)]).env("SAGABUS_CRASH_LOG", &log);
    let mut victim = Proc::spawn("order1", &mut victim, dir)?;
    let status = victim.wait_for(LIMIT)?.context("neither the point nor the end was reached")?;
    let hit = was_killed(status);
    if hit {
        let reached = std::fs::read_to_string(&log).unwrap_or_default();
        if !reached.lines().any(|line| line == point.name) {
            bail!("a signal came, but the product's log does not name {}", point.name);
        }
        Proc::spawn("order2", &mut command()?, dir)?.expect_success(LIMIT)?;
    } else if !status.success() {
        bail!("it ended with {status}:\n{}", tail(victim.stderr(), 20));
    }
    Ok((hit, judge(&mut Db::open(&dir.join("shop.db"))?, orders)?))
}

/// Every order is there and final; its ledger says what its status says.
pub fn judge(db: &mut Db, orders: u64) -> Result<Judgement> {
    let mut judgement = Judgement::default();
    let rows: Vec<(i64, String, i64, i64, i64, i64)> = db.rows(
        "select o.id, o.status,
                count(*) filter (where l.entry = 'reserved'), count(*) filter (where l.entry = 'released'),
                count(*) filter (where l.entry = 'captured'), count(*) filter (where l.entry = 'shipped')
         from orders o left join ledger l on l.order_id = o.id group by o.id",
    )?;
    judgement.messages = rows.len() as u64;
    judgement.lost = orders.abs_diff(rows.len() as u64);
    for (id, status, reserved, released, captured, shipped) in rows {
        let counts = [reserved, released, captured, shipped];
        let good = match status.as_str() {
            "confirmed" => counts == [1, 0, 1, 1],
            "cancelled" => reserved == released && reserved <= 1 && captured == 0 && shipped == 0,
            _ => false,
        };
        if good {
            continue;
        }
        judgement.examples.push(format!("order {id} is {status}, with {counts:?}"));
        match counts.iter().any(|count| *count > 1) {
            true => judgement.duplicated += 1,
            false => judgement.lost += 1,
        }
    }
    let ghosts = db.number("select count(*) from ledger where order_id not in (select id from orders)")?;
    judgement.ghosts = ghosts.unsigned_abs();
    Ok(judgement)
}
