//! `cargo xtask crash`: a real process dies, or is frozen, at each point of a message's way.

pub mod case;
pub mod orders;
pub mod points;
pub mod totals;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use self::case::{Case, Turn};
use self::points::{ALL, Point};
use self::totals::Totals;
use crate::checks::fixture::artifacts::Artifacts;
use crate::checks::fixture::backend::{Backend, Store};
use crate::checks::fixture::environment::{Installation, Layout};
use crate::checks::fixture::signals::Action;
use crate::command::Check;
use crate::verdict::{Timer, Verdict};
use sagabus_testkit::rng::{Rng, fresh_seed};

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
    /// One by one. Messages that are on a broker are never in the store's own database.
    pub fn of(self, backend: Backend) -> Result<&'static [Layout]> {
        Ok(match (self, backend.broker) {
            (Layouts::Joined, Some(_)) => bail!("there is no joined layout of {backend}"),
            (Layouts::Joined, None) => &[Layout::Joined],
            (Layouts::Both, None) => &[Layout::Joined, Layout::Split],
            (Layouts::Split | Layouts::Both, _) => &[Layout::Split],
        })
    }
}

/// Which programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Program {
    /// A workload with every kind of message, made for this.
    Scenario,
    /// The order example; killed only, and on SQLite only.
    Order,
    /// Both.
    Both,
}

const SQLITE: Backend = Backend { broker: None, store: Store::Sqlite };

/// Kills or freezes a process at each crash point and judges what comes out (counts: points_total, points_hit, kills,
/// stops, takeovers, locked, order_runs,
/// order_hits, redeliveries, relay_sends, messages, lost, duplicated, ghosts, early, order_breaks, absent_checked)
#[derive(Debug, Args)]
pub struct Crash {
    /// The store, alone or behind a broker: sqlite, postgres, rabbitmq+sqlite, rabbitmq+postgres, kafka+…
    #[arg(long, default_value = "sqlite")]
    backend: Backend,
    /// How many processes share the work, the victim among them
    #[arg(long, default_value_t = 1)]
    processes: usize,
    /// Where the queues lie
    #[arg(long, value_enum, default_value = "both")]
    layout: Layouts,
    /// A point, several separated by commas, or all
    #[arg(long, value_delimiter = ',', default_value = "all")]
    point: Vec<String>,
    /// What dies
    #[arg(long, value_enum, default_value = "both")]
    program: Program,
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
        if self.processes == 0 || (self.program == Program::Order && self.backend != SQLITE) {
            bail!("there must be a process, and the order example keeps its rows in SQLite");
        }
        let layouts = self.layout.of(self.backend)?;
        let seed = self.seed.unwrap_or_else(fresh_seed);
        let timer = Timer::start(Self::NAME).seed(seed);
        println!("seed {seed} (repeat with --seed {seed})");
        points::check_table()?;
        let chosen = self.points()?;
        let installation = Installation::assemble(self.backend)?;
        let artifacts = Artifacts::prepare(Self::NAME, self.keep.as_deref())?;
        let mut totals = Totals::default();
        for layout in layouts {
            for point in &chosen {
                // a stream of its own, so that a point alone is hit as it is among all
                let mut rng = Rng::new(seed ^ u64::from_le_bytes(*b"crashpts")).fork();
                for _ in 0..position(point) {
                    rng = rng.fork();
                }
                if self.program == Program::Order {
                    totals.points += 1;
                    totals.hit +=
                        u64::from(self.order(point, *layout, &mut rng, &installation, &artifacts, &mut totals));
                    continue;
                }
                match point.absent(*layout) {
                    Some(reason) => self.absent(point, *layout, reason, &installation, &artifacts, &mut totals)?,
                    None => self.present(point, *layout, &mut rng, &installation, &artifacts, &mut totals)?,
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
        installation: &Installation,
        artifacts: &Artifacts,
        totals: &mut Totals,
    ) -> Result<()> {
        totals.points += 1;
        let mut hit_by_all = true;
        for action in &self.action {
            let drawn = self.nth.unwrap_or(rng.between(1, point.most));
            let (messages, processes) = (self.messages, self.processes);
            let plans = if let points::Way::After(plans) = point.way { plans } else { &[] };
            let mut plans = plans.iter().copied();
            let (shared, before) = (None, plans.next());
            let mut case = Case { point, layout, action: *action, nth: drawn, messages, processes, shared, before };
            let mut seen = totals.carry_out(&case, installation, artifacts);
            // batches are as large as the load makes them, so a late hit may not come; a first one must
            if matches!(&seen, Some(seen) if !seen.hit) && drawn > 1 {
                case.nth = 1;
                seen = totals.carry_out(&case, installation, artifacts);
            }
            while matches!(&seen, Some(seen) if !seen.hit)
                && let Some(plan) = plans.next()
            {
                case.before = Some(plan);
                seen = totals.carry_out(&case, installation, artifacts);
            }
            // unless the others have taken all of it: with a share of its own, of more and more, it must
            for turn in [Turn::First, Turn::Last] {
                if !matches!(&seen, Some(seen) if !seen.hit) || case.processes == 1 {
                    break;
                }
                case.shared = (point.way == points::Way::Work).then_some(turn);
                case.messages *= 4;
                seen = totals.carry_out(&case, installation, artifacts);
            }
            hit_by_all &= seen.is_some_and(|seen| seen.hit);
        }
        totals.hit += u64::from(hit_by_all);
        // it is asked to end by nobody, and leaves nothing for a relay in one go
        if self.program == Program::Both
            && self.backend == SQLITE
            && self.action.contains(&Action::Kill)
            && point.way == points::Way::Work
        {
            self.order(point, layout, rng, installation, artifacts, totals);
        }
        Ok(())
    }

    /// The order example at a point; at its first hit if the one that was drawn does not come.
    fn order(
        &self,
        point: &'static Point,
        layout: Layout,
        rng: &mut Rng,
        installation: &Installation,
        artifacts: &Artifacts,
        totals: &mut Totals,
    ) -> bool {
        let mut nth = self.nth.unwrap_or(rng.between(1, point.most));
        loop {
            let name = format!("{}-{}-order-{nth}", layout.word(), point.name);
            let cells = [layout.word(), point.name, "kill (order)", &nth.to_string()];
            let run = |dir: &Path| orders::run(point, nth, layout, self.messages, &installation.programs, dir);
            if totals.order(&name, cells, &artifacts.run(&name), artifacts, run) {
                return true;
            }
            if nth == 1 {
                return false;
            }
            nth = 1;
        }
    }

    /// A point that is declared not to exist must not be reached by the whole workload.
    fn absent(
        &self,
        point: &'static Point,
        layout: Layout,
        reason: &str,
        installation: &Installation,
        artifacts: &Artifacts,
        totals: &mut Totals,
    ) -> Result<()> {
        let point_or_relay = if point.most == 1 { &ABSENT_RELAY } else { point };
        let case = Case {
            point: point_or_relay,
            layout,
            action: Action::Kill,
            nth: 1,
            messages: self.messages,
            processes: 1,
            shared: None,
            before: None,
        };
        if totals.carry_out(&case, installation, artifacts).is_some_and(|seen| seen.hit) {
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
