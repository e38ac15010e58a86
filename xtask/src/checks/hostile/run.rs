//! One case after another, each followed by a message as it should be, which must get through.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::cases::{Case, Expect};
use super::given::Row;
use crate::checks::fixture::db::Db;
use crate::checks::fixture::environment::ready;
use crate::checks::fixture::programs::Programs;
use crate::proc::{Proc, tail};
use sagabus_testkit::rng::Rng;

/// How long a case, and the message behind it, may take.
const LIMIT: Duration = Duration::from_secs(30);

/// The endpoint under fire.
pub struct Target<'a> {
    programs: &'a Programs,
    dir: &'a Path,
    node: Proc,
    db: Db,
    pings: i64,
    /// How often it was started.
    pub starts: u32,
}

/// What became of a case.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Dead letters: reason and detail.
    pub dead: Vec<String>,
    /// Effects: kind and key.
    pub effects: Vec<(String, String)>,
    /// The process ended.
    pub died: bool,
    /// How long the message behind it took.
    pub behind: Duration,
}

/// The command of a node on the files of a directory.
pub fn command(programs: &Programs, dir: &Path) -> Result<Command> {
    let mut command = Command::new(programs.path("hostile-node")?);
    let url = format!("sqlite://{}", dir.join("shop.db").display());
    command.args(["--transport", &url, "--store", &url]);
    Ok(command)
}

impl<'a> Target<'a> {
    /// Starts it.
    pub fn start(programs: &'a Programs, dir: &'a Path) -> Result<Self> {
        let mut node = Proc::spawn("node1", &mut command(programs, dir)?, dir)?;
        ready(&mut node)?;
        let db = Db::open(&dir.join("shop.db"))?;
        Ok(Self { programs, dir, node, db, pings: 0, starts: 1 })
    }

    /// Stops it in good order, and returns its database.
    pub fn stop(mut self) -> Result<Db> {
        self.node.terminate()?;
        self.node.expect_success(LIMIT)?;
        Ok(self.db)
    }

    /// Puts a case before it and waits for what becomes of it.
    pub fn face(&mut self, case: &Case, rng: &mut Rng) -> Result<Outcome> {
        let letters = self.db.number("select coalesce(max(id), 0) from dead_letter")?;
        let effects = self.db.number("select coalesce(max(id), 0) from effect")?;
        if let Some(sql) = &case.before {
            self.db.run(sql)?;
        }
        case.row.insert(&mut self.db, "victim", rng.below(32) as i64)?;
        let behind = Instant::now();
        self.pings += 1;
        let ping = Row::good(rng, "hostile.ping", format!("{{\"n\":{}}}", self.pings));
        ping.insert(&mut self.db, "victim", rng.below(32) as i64)?;
        let mut outcome = Outcome::default();
        let deadline = behind + LIMIT;
        let mut pong = false;
        loop {
            if !pong
                && self.db.number(&format!("select count(*) from effect where kind = 'ping' and n = {}", self.pings))?
                    > 0
            {
                outcome.behind = behind.elapsed();
                pong = true;
            }
            let rest = self.db.number(
                "select (select count(*) from queue) + (select count(*) from retry) + (select count(*) from parked)",
            )?;
            if pong && rest == 0 {
                break;
            }
            if let Some(status) = self.node.poll()? {
                if !case.lethal {
                    bail!("the process ended with {status}:\n{}", tail(self.node.stderr(), 10));
                }
                outcome.died = true;
                self.starts += 1;
                let name = format!("node{}", self.starts);
                self.node = Proc::spawn(name, &mut command(self.programs, self.dir)?, self.dir)?;
            }
            if Instant::now() > deadline {
                bail!("{rest} rows are left, the message behind it {} through", if pong { "is" } else { "is not" });
            }
            thread::sleep(Duration::from_millis(5));
        }
        let dead: Vec<(String, String)> =
            self.db.rows(&format!("select reason, substr(detail, 1, 400) from dead_letter where id > {letters}"))?;
        outcome.dead = dead.into_iter().map(|(reason, detail)| format!("{reason}: {detail}")).collect();
        outcome.effects = self
            .db
            .rows(&format!("select kind, key from effect where id > {effects} and kind <> 'ping' order by id"))?;
        Ok(outcome)
    }
}

/// What is wrong with an outcome, if anything.
pub fn wrong(case: &Case, outcome: &Outcome) -> Option<String> {
    let effect = |kind: &str| outcome.effects.len() == 1 && outcome.effects[0].0 == kind;
    let dead = |text: &str| outcome.dead.len() == 1 && outcome.dead[0].contains(text);
    let nothing_dead = outcome.dead.is_empty();
    let right = match &case.expect {
        Expect::Dead(text) => dead(text) && outcome.effects.is_empty(),
        Expect::Effect(kind, key) => effect(kind) && outcome.effects[0].1 == *key && nothing_dead,
        Expect::Dropped => outcome.effects.is_empty() && nothing_dead,
        Expect::EffectAndDead(kind, text) => effect(kind) && dead(text),
    };
    (!right).then(|| format!("effects {:?}, dead letters {:?}", outcome.effects, outcome.dead))
}
