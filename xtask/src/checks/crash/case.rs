//! One process, one point, one signal; then everything must come out as if nothing had been.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::points::{Point, Way};
use crate::checks::fixture::environment::{self, DRAIN, Environment, Installation, Layout};
use crate::checks::fixture::judge::{Judgement, judge};
use crate::checks::fixture::signals::{Action, is_stopped, was_killed};
use crate::proc::{Proc, tail};

/// Short, so that a stopped process is soon given up; long enough for a busy machine.
const LEASE: Duration = Duration::from_millis(800);

/// What is done.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Where.
    pub point: &'static Point,
    /// With which files.
    pub layout: Layout,
    /// How.
    pub action: Action,
    /// At which hit of the point.
    pub nth: u64,
    /// How many messages.
    pub messages: u64,
    /// How many processes share the work.
    pub processes: usize,
    /// All of them are there before the first message, so that each gets its share: otherwise the first one may take
    /// everything. Where [`Way::Work`] leads to the point only.
    pub shared: Option<Turn>,
    /// Where another process dies before.
    pub before: Option<&'static str>,
}

/// When the victim comes, of those that share the work. Kafka's assignor counts partitions, whatever their topics: who comes
/// second is given the first half of them in the order of their names, which may be all of one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Before the others.
    First,
    /// After them.
    Last,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// The signal was seen at the point, by the product's own log and by the kernel.
    pub hit: bool,
    /// Another process has done the work meanwhile.
    pub taken_over: bool,
    /// It was stopped while it held a file's write lock, so that no other one could.
    pub locked: bool,
    /// Handlers that were started again with a message.
    pub redeliveries: u64,
    /// Messages that a relay sent.
    pub relay_sends: u64,
    /// What came out.
    pub judgement: Judgement,
}

impl Case {
    /// What its directory is called.
    pub fn name(&self) -> String {
        let Self { layout, point, action, nth, messages, .. } = self;
        let after = self.before.map(|plan| format!("-after-{}", plan.replace(':', "-"))).unwrap_or_default();
        format!("{}-{}-{}-{nth}-of-{messages}{after}", layout.word(), point.name, action.word())
    }

    /// Carries it out in an empty directory.
    pub fn run(&self, installation: &Installation, dir: &Path) -> Result<Seen> {
        let mut environment = Environment::create(installation, dir, self.layout, LEASE)?;
        let mut seen = Seen::default();
        let keys = if self.processes > 1 { 12 } else { 3 };
        let send = |environment: &Environment<'_>| environment.generator(self.messages, 8, keys, 1);
        let generator = if self.shared.is_some() { None } else { Some(send(&environment)?) };
        if let Some(plan) = self.before {
            // the first one leaves its work behind, for the one that is to die while it takes that over
            let mut before = environment.launch(Some(plan))?;
            let status = before.wait_for(DRAIN)?.with_context(|| format!("wait for a death at {plan}"))?;
            if !was_killed(status) {
                bail!("at {plan} it ended with {status}:\n{}", tail(before.stderr(), 20));
            }
        }
        let reached = environment.reached().len();
        let plan = format!("{}:{}:{}", self.point.name, self.nth, self.action.word());
        // where another one died before, a survivor would take over what the victim is to take over
        let others = if self.before.is_none() { 1..self.processes } else { 0..0 };
        let mut survivors = Vec::new();
        if self.shared == Some(Turn::Last) {
            survivors = launch_ready(&mut environment, others.len())?;
        }
        let mut victim = environment.launch(Some(&plan))?;
        if self.shared.is_some() {
            // on Kafka who comes first has all partitions, and keeps half; who comes second waits for seconds for the rest
            environment::ready(&mut victim)?;
        }
        match self.shared {
            Some(Turn::First) => survivors = launch_ready(&mut environment, others.len())?,
            Some(Turn::Last) => {}
            None => {
                for _ in others {
                    survivors.push(environment.launch(None)?);
                }
            }
        }
        let mut generator = match generator {
            Some(generator) => generator,
            None => send(&environment)?,
        };
        if self.point.way == Way::Ending {
            environment::ready(&mut victim)?;
            until_work(&mut environment)?;
            victim.terminate()?;
        }
        seen.hit = struck(&mut environment, &mut victim, &mut generator, self)?;
        if seen.hit && !environment.reached().iter().skip(reached).any(|point| point == self.point.name) {
            bail!("a signal came, but the product's log does not name {}", self.point.name);
        }
        match (seen.hit, self.action) {
            (false, _) if victim.poll()?.is_none() => survivors.push(victim),
            (false, _) => survivors.push(environment.node()?),
            (true, Action::Kill) => {
                seen.taken_over = true;
                survivors.push(environment.node()?);
            }
            (true, Action::Stop) => {
                let pid = victim.pid();
                // frozen inside of a transaction it holds the file's one write lock: then nobody can take over
                seen.locked = environment.is_locked()?;
                let other = environment.launch(None)?;
                if seen.locked {
                    thread::sleep(LEASE * 3);
                } else {
                    let done = environment.drained(DRAIN)?;
                    seen.taken_over = environment.observed()?.pids.iter().any(|other| *other != pid);
                    if !done {
                        bail!("beside a stopped process the work does not end: {}", environment.leftovers()?);
                    }
                }
                victim.cont()?;
                survivors.extend([other, victim]);
            }
        }
        generator.expect_success(DRAIN).context("the generator")?;
        if !environment.drained(DRAIN)? {
            bail!("the work does not end: {}", environment.leftovers()?);
        }
        for mut survivor in survivors {
            // one that was started a moment ago would take the signal for the default one
            environment::ready(&mut survivor)?;
            environment::stop(survivor)?;
        }
        let observed = environment.observed()?;
        seen.redeliveries = observed.redeliveries;
        seen.relay_sends = observed.relay_sends;
        seen.judgement = judge(&observed);
        Ok(seen)
    }
}

/// So many processes, all of them at work.
fn launch_ready(environment: &mut Environment<'_>, count: usize) -> Result<Vec<Proc>> {
    let mut processes = Vec::new();
    for _ in 0..count {
        processes.push(environment.launch(None)?);
    }
    for process in &mut processes {
        environment::ready(process)?;
    }
    Ok(processes)
}

/// Waits until the victim is killed or stopped. False if it lives, or has ended in good order, and the work is done.
fn struck(environment: &mut Environment<'_>, victim: &mut Proc, generator: &mut Proc, case: &Case) -> Result<bool> {
    let deadline = Instant::now() + DRAIN;
    loop {
        if let Some(status) = victim.poll()? {
            return match (was_killed(status), status.success() && case.point.way == Way::Ending) {
                (true, _) if case.action == Action::Kill => Ok(true),
                (false, true) => Ok(false),
                _ => bail!("it ended with {status} instead:\n{}", tail(victim.stderr(), 20)),
            };
        }
        if case.action == Action::Stop && is_stopped(victim.pid())? {
            return Ok(true);
        }
        if generator.poll()?.is_some() && case.point.way != Way::Ending && quiet(environment)? {
            // its last settlement may come a moment after its last row
            thread::sleep(Duration::from_millis(100));
            return Ok(victim.poll()?.is_some_and(was_killed) || is_stopped(victim.pid()).unwrap_or(false));
        }
        if Instant::now() > deadline {
            bail!("neither {} nor the end of the work was reached: {}", case.point.name, environment.leftovers()?);
        }
        thread::sleep(Duration::from_millis(4));
    }
}

/// No work left, twice. A locked file means that there is.
fn quiet(environment: &mut Environment<'_>) -> Result<bool> {
    if !environment.at_rest()? {
        return Ok(false);
    }
    thread::sleep(Duration::from_millis(150));
    environment.at_rest()
}

fn until_work(environment: &mut Environment<'_>) -> Result<()> {
    let deadline = Instant::now() + DRAIN;
    while environment.store()?.number("select count(*) from effect")? < 3 {
        if Instant::now() > deadline {
            bail!("no handler has written anything");
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
