//! What the runs add up to.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use super::case::{Case, Seen};
use crate::checks::fixture::artifacts::Artifacts;
use crate::checks::fixture::environment::Installation;
use crate::checks::fixture::judge::Judgement;
use crate::checks::fixture::signals::Action;
use crate::table::Table;
use crate::verdict::{Outcome, Timer, Verdict, seconds_since};

/// See the module.
pub struct Totals {
    pub(super) points: u64,
    pub(super) hit: u64,
    pub(super) kills: u64,
    pub(super) stops: u64,
    pub(super) takeovers: u64,
    pub(super) locked: u64,
    pub(super) orders: u64,
    pub(super) orders_hit: u64,
    pub(super) redeliveries: u64,
    pub(super) relay_sends: u64,
    pub(super) absent: u64,
    pub(super) failed: u64,
    pub(super) judgement: Judgement,
    pub(super) table: Table,
}

impl Default for Totals {
    fn default() -> Self {
        let table =
            Table::new(["layout", "point", "action", "nth", "hit", "redelivered", "relayed", "seconds", "result"]);
        let (points, hit, kills, stops, takeovers, locked) = (0, 0, 0, 0, 0, 0);
        let (redeliveries, relay_sends, absent, failed, orders, orders_hit) = (0, 0, 0, 0, 0, 0);
        let judgement = Judgement::default();
        Self {
            points,
            hit,
            kills,
            stops,
            takeovers,
            locked,
            orders,
            orders_hit,
            redeliveries,
            relay_sends,
            absent,
            failed,
            judgement,
            table,
        }
    }
}

impl Totals {
    /// Runs a case, counts it and shows it. A case that could not be carried out has failed.
    pub(super) fn carry_out(
        &mut self,
        case: &Case,
        installation: &Installation,
        artifacts: &Artifacts,
    ) -> Option<Seen> {
        let started = Instant::now();
        let name = case.name();
        let dir = artifacts.run(&name);
        let result = case.run(installation, &dir);
        let failed = !matches!(&result, Ok(seen) if seen.judgement.is_clean());
        let text = match &result {
            Err(error) => format!("FAILED: {error:#}"),
            Ok(seen) if !seen.judgement.is_clean() => format!("FAILED: {}", seen.judgement.examples.join("; ")),
            Ok(seen) if seen.locked => "ok (stopped with the write lock, so nobody could take over)".to_owned(),
            Ok(seen) if seen.hit && !seen.taken_over => "nobody took over".to_owned(),
            Ok(seen) if seen.hit => "ok".to_owned(),
            Ok(_) => "ok, not reached".to_owned(),
        };
        let (hit, redelivered, relayed) =
            result.as_ref().map_or((false, 0, 0), |seen| (seen.hit, seen.redeliveries, seen.relay_sends));
        let seconds = seconds_since(started);
        println!("{name}: {text} ({seconds} s)");
        self.table.row([
            case.layout.word().to_owned(),
            case.point.name.to_owned(),
            case.action.word().to_owned(),
            case.nth.to_string(),
            if hit { "yes" } else { "no" }.to_owned(),
            redelivered.to_string(),
            relayed.to_string(),
            seconds.to_string(),
            text,
        ]);
        if let Err(error) = artifacts.done(&dir, failed) {
            println!("{name}: {error:#}");
        }
        self.failed += u64::from(failed);
        let seen = result.ok()?;
        match case.action {
            Action::Kill => self.kills += u64::from(seen.hit),
            Action::Stop => {
                self.stops += u64::from(seen.hit);
                self.takeovers += u64::from(seen.hit && seen.taken_over);
                self.locked += u64::from(seen.hit && seen.locked);
            }
        }
        self.redeliveries += seen.redeliveries;
        self.relay_sends += seen.relay_sends;
        self.judgement.add(seen.judgement.clone());
        Some(seen)
    }

    /// A run of the order example.
    pub(super) fn order(
        &mut self,
        name: &str,
        cells: [&str; 4],
        dir: &Path,
        artifacts: &Artifacts,
        run: impl FnOnce(&Path) -> Result<(bool, Judgement)>,
    ) -> bool {
        let started = Instant::now();
        let result = run(dir);
        let failed = !matches!(&result, Ok((_, judgement)) if judgement.is_clean());
        let text = match &result {
            Err(error) => format!("FAILED: {error:#}"),
            Ok((_, judgement)) if failed => format!("FAILED: {}", judgement.examples.join("; ")),
            Ok((true, _)) => "ok".to_owned(),
            Ok((false, _)) => "ok, not reached".to_owned(),
        };
        let hit = result.as_ref().is_ok_and(|(hit, _)| *hit);
        let seconds = seconds_since(started).to_string();
        println!("{name}: {text} ({seconds} s)");
        let hits = if hit { "yes" } else { "no" };
        self.table.row(cells.into_iter().chain([hits, "", "", &seconds, &text]));
        if let Err(error) = artifacts.done(dir, failed) {
            println!("{name}: {error:#}");
        }
        self.failed += u64::from(failed);
        self.orders += 1;
        self.orders_hit += u64::from(hit);
        self.kills += u64::from(hit);
        if let Ok((_, judgement)) = result {
            self.judgement.add(judgement);
        }
        hit
    }

    pub(super) fn verdict(self, mut timer: Timer) -> Verdict {
        timer.count("points_total", self.points).count("points_hit", self.hit);
        timer.count("kills", self.kills).count("stops", self.stops).count("takeovers", self.takeovers);
        timer.count("stops_with_lock", self.locked);
        timer.count("order_runs", self.orders).count("order_hits", self.orders_hit);
        timer.count("redeliveries", self.redeliveries).count("relay_sends", self.relay_sends);
        counted(&mut timer, &self.judgement);
        timer.count("absent_checked", self.absent).count("failed", self.failed);
        timer.finish(if self.failed > 0 || !self.judgement.is_clean() {
            Outcome::Fail
        } else if self.hit < self.points
            || self.takeovers + self.locked < self.stops
            || self.points == 0
            || (self.orders > 0 && self.orders_hit * 2 < self.orders)
        {
            Outcome::Vacuous
        } else {
            Outcome::Pass
        })
    }
}

/// The judge's counts, under the agreed names.
pub fn counted(timer: &mut Timer, judgement: &Judgement) {
    timer.count("messages", judgement.messages).count("lost", judgement.lost);
    timer.count("duplicated", judgement.duplicated).count("ghosts", judgement.ghosts);
    timer.count("early", judgement.early).count("order_breaks", judgement.order_breaks);
}
