//! The end: what became of the orders, and whether the rows add up.

use crate::{
    check,
    database::Database,
    endpoints,
    event_log::{self, tell},
    mail,
    options::Options,
    rows::{self, Order},
    scenario::Scenario,
};
use sagabus::RunningEndpoint;
use std::{collections::BTreeMap, error::Error};

/// Prints it; true if everything is as it must be.
pub(crate) async fn print(options: &Options, pool: &Database, dead: &[String]) -> Result<bool, Box<dyn Error>> {
    let orders = rows::all(pool).await?;
    let confirmed = orders.values().filter(|order| order.status == "confirmed").count();
    let cancelled = orders.values().filter(|order| order.status == "cancelled").count();
    let total = |entry| orders.values().map(|order| order.count(entry)).sum::<u64>();
    let (number, seconds) = (orders.len(), event_log::seconds());
    tell(format_args!("\n{number} orders after {seconds:.1} s: {confirmed} confirmed, {cancelled} cancelled"));
    for (outcome, count) in outcomes(&orders, options.seed) {
        tell(format_args!("  {count:6}  {outcome}"));
    }
    tell(format_args!(
        "ledger: {} reserved, {} released, {} captured, {} shipped",
        total("reserved"),
        total("released"),
        total("captured"),
        total("shipped")
    ));
    let mut problems = check::all(&orders, options.orders, options.seed);
    for letter in dead {
        tell(format_args!("dead letter: {letter}"));
    }
    problems.extend(dead.iter().filter(|letter| !is_expected(letter)).map(|letter| format!("dead letter: {letter}")));
    for problem in &problems {
        tell(format_args!("WRONG: {problem}"));
    }
    if problems.is_empty() {
        tell("check: every order is final, and its ledger adds up");
    }
    Ok(problems.is_empty())
}

fn outcomes(orders: &BTreeMap<u64, Order>, seed: u64) -> BTreeMap<&'static str, usize> {
    let mut outcomes = BTreeMap::new();
    for (id, order) in orders {
        let outcome = match (order.status.as_str(), Scenario::of(seed, *id)) {
            ("confirmed", Scenario::Late) => "confirmed: the late payment came before anyone missed it",
            ("confirmed", _) => "confirmed",
            ("cancelled", Scenario::Declined) => "cancelled: the payment is declined",
            ("cancelled", Scenario::Late) => "cancelled: the payment came too late, and is released",
            ("cancelled", Scenario::OutOfStock) => "cancelled: out of stock, and the payment is released",
            ("cancelled", Scenario::Good) => "cancelled: nobody was there to pay in time, and the payment is released",
            _ => "not final",
        };
        *outcomes.entry(outcome).or_default() += 1;
    }
    outcomes
}

/// The dead letters of the three services, one line each.
pub(crate) async fn dead_letters(running: &[RunningEndpoint]) -> Result<Vec<String>, Box<dyn Error>> {
    // all endpoints share a store, so anyone can look
    let Some(admin) = running.first().and_then(RunningEndpoint::admin) else { return Ok(Vec::new()) };
    let mut lines = Vec::new();
    for name in endpoints::NAMES {
        for letter in admin.store().dead_letters(name, 0, 100).await? {
            let why = letter.detail.join(": ");
            let what = &letter.message.headers.message_type;
            lines.push(format!("{name}/{}: {what}: {}: {why}", letter.handler, letter.reason));
        }
    }
    Ok(lines)
}

/// Whether a dead letter belongs to the story.
pub(crate) fn is_expected(line: &str) -> bool {
    line.starts_with(&format!("shop/{}: ", mail::HANDLER))
}
