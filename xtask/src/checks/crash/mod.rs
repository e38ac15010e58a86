//! `cargo xtask crash`: a real process dies, or is frozen, at each point of a message's way.

pub mod case;
pub mod points;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use self::case::{Case, Seen};
use self::points::{ALL, Point};
use crate::checks::bed::judge::Judgement;
use crate::checks::bed::keep::Ground;
use crate::checks::bed::place::Layout;
use crate::checks::bed::programs::{Build, Programs};
use crate::checks::bed::signals::Action;
use crate::command::Check;
use crate::rng::{Rng, fresh_seed};
use crate::table::Table;
use crate::verdict::{Outcome, Timer, Verdict, seconds_since};

/// Which layouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Layouts {
    /// Queue and store in one file.
    Joined,
    /// In two.
    Split,
    /// One after the other.
    Both,
}

impl Layouts {
    /// One by one.
    pub fn each(self) -> &'static [Layout] {
        match self {
            Layouts::Joined => &[Layout::Joined],
            Layouts::Split => &[Layout::Split],
            Layouts::Both => &[Layout::Joined, Layout::Split],
        }
    }
}

/// Kills or freezes a process at each crash point and judges what comes out (counts: points_total, points_hit, kills,
/// stops, takeovers, locked, redeliveries, relay_sends, messages, lost, duplicated, ghosts, early, order_breaks, absent_checked)
#[derive(Debug, Args)]
pub struct Crash {
    /// The store; `sqlite` is the only one with processes of its own so far
    #[arg(long, default_value = "sqlite")]
    backend: String,
    /// Where the queues lie
    #[arg(long, value_enum, default_value = "both")]
    layout: Layouts,
    /// A point, several separated by commas, or all
    #[arg(long, value_delimiter = ',', default_value = "all")]
    point: Vec<String>,
    /// What happens there
    #[arg(long, value_enum, value_delimiter = ',', default_value = "kill,stop")]
    action: Vec<Action>,
    /// At which hit of the point, instead of one that is drawn
    #[arg(long)]
    nth: Option<u64>,
    /// Messages of each run
    #[arg(long, default_value_t = 20)]
    messages: u64,
    /// Which hit of a point is taken is drawn from this
    #[arg(long)]
    seed: Option<u64>,
    /// Keep logs, ledgers and audits, as JSON lines, in this directory
    #[arg(long)]
    keep: Option<PathBuf>,
}

impl Check for Crash {
    const NAME: &'static str = "crash";

    fn run(self) -> Result<Verdict> {
        if self.backend != "sqlite" {
            bail!("there is no backend {}; there is sqlite", self.backend);
        }
        let seed = self.seed.unwrap_or_else(fresh_seed);
        let timer = Timer::start(Self::NAME).seed(seed);
        println!("seed {seed} (repeat with --seed {seed})");
        points::check_table()?;
        let chosen = self.points()?;
        let programs = Programs::build(Build::Chaos)?;
        let ground = Ground::prepare(Self::NAME, self.keep.as_deref())?;
        let mut totals = Totals::default();
        for layout in self.layout.each() {
            for point in &chosen {
                // a stream of its own, so that a point alone is hit as it is among all
                let mut rng = Rng::new(seed ^ u64::from_le_bytes(*b"crashpts")).fork();
                for _ in 0..position(point) {
                    rng = rng.fork();
                }
                match point.absent(*layout) {
                    Some(reason) => self.absent(point, *layout, reason, &programs, &ground, &mut totals)?,
                    None => self.present(point, *layout, &mut rng, &programs, &ground, &mut totals)?,
                }
            }
        }
        println!("\n{}", totals.table);
        totals.judgement.examples.iter().for_each(|example| println!("{example}"));
        Ok(totals.verdict(timer))
    }
}

impl Crash {
    fn points(&self) -> Result<Vec<&'static Point>> {
        if self.point.iter().any(|name| name == "all") {
            return Ok(ALL.iter().collect());
        }
        self.point.iter().map(|name| Point::named(name)).collect()
    }

    fn present(
        &self,
        point: &'static Point,
        layout: Layout,
        rng: &mut Rng,
        programs: &Programs,
        ground: &Ground,
        totals: &mut Totals,
    ) -> Result<()> {
        totals.points += 1;
        let mut hit_by_all = true;
        for action in &self.action {
            let drawn = self.nth.unwrap_or(rng.between(1, point.most));
            let mut case = Case { point, layout, action: *action, nth: drawn, messages: self.messages };
            let mut seen = totals.carry_out(&case, programs, ground);
            // batches are as large as the load makes them, so a late hit may not come; a first one must
            if matches!(&seen, Some(seen) if !seen.hit) && drawn > 1 {
                case.nth = 1;
                seen = totals.carry_out(&case, programs, ground);
            }
            hit_by_all &= seen.is_some_and(|seen| seen.hit);
        }
        totals.hit += u64::from(hit_by_all);
        Ok(())
    }

    /// A point that is declared not to exist must not be reached by the whole workload.
    fn absent(
        &self,
        point: &'static Point,
        layout: Layout,
        reason: &str,
        programs: &Programs,
        ground: &Ground,
        totals: &mut Totals,
    ) -> Result<()> {
        let case = Case { point, layout, action: Action::Kill, nth: 1, messages: self.messages };
        let case = Case { point: if point.most == 1 { &ABSENT_RELAY } else { case.point }, ..case };
        if totals.carry_out(&case, programs, ground).is_some_and(|seen| seen.hit) {
            totals.failed += 1;
            println!("{} is declared absent from the {} layout ({reason}), and was reached", point.name, layout.word());
        }
        totals.absent += 1;
        Ok(())
    }
}

/// Without an outbox nobody leaves anything for a relay; so no death is needed before.
static ABSENT_RELAY: Point = Point { name: "relay-read", most: 1, way: points::Way::Work, not_joined: None };

fn position(point: &Point) -> usize {
    ALL.iter().position(|other| other.name == point.name).unwrap_or(0)
}

struct Totals {
    points: u64,
    hit: u64,
    kills: u64,
    stops: u64,
    takeovers: u64,
    locked: u64,
    redeliveries: u64,
    relay_sends: u64,
    absent: u64,
    failed: u64,
    judgement: Judgement,
    table: Table,
}

impl Default for Totals {
    fn default() -> Self {
        let table =
            Table::new(["layout", "point", "action", "nth", "hit", "redelivered", "relayed", "seconds", "result"]);
        let (points, hit, kills, stops, takeovers, locked) = (0, 0, 0, 0, 0, 0);
        let (redeliveries, relay_sends, absent, failed) = (0, 0, 0, 0);
        let judgement = Judgement::default();
        Self {
            points,
            hit,
            kills,
            stops,
            takeovers,
            locked,
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
    fn carry_out(&mut self, case: &Case, programs: &Programs, ground: &Ground) -> Option<Seen> {
        let started = Instant::now();
        let name = format!("{}-{}-{}-{}", case.layout.word(), case.point.name, case.action.word(), case.nth);
        let dir = ground.run(&name);
        let result = case.run(programs, &dir);
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
        if let Err(error) = ground.done(&dir, failed) {
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

    fn verdict(self, mut timer: Timer) -> Verdict {
        timer.count("points_total", self.points).count("points_hit", self.hit);
        timer.count("kills", self.kills).count("stops", self.stops).count("takeovers", self.takeovers);
        timer.count("stops_with_lock", self.locked);
        timer.count("redeliveries", self.redeliveries).count("relay_sends", self.relay_sends);
        counted(&mut timer, &self.judgement);
        timer.count("absent_checked", self.absent).count("failed", self.failed);
        timer.finish(if self.failed > 0 || !self.judgement.is_clean() {
            Outcome::Fail
        } else if self.hit < self.points || self.takeovers + self.locked < self.stops || self.points == 0 {
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
