//! What is done to Kafka, and to the processes that read it.

pub mod offset_auditor;
pub mod offsets;
pub mod server;

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use self::offset_auditor::{OffsetAuditor, Sample};
use self::offsets::{Traces, passed};
use self::server::Server;
use super::Nemesis;
use super::cluster_under_test::ClusterUnderTest;
use crate::checks::fixture::environment::Environment;

/// A process is missed within three seconds, and the group goes on after the next round of it.
const PATIENCE: Duration = Duration::from_secs(90);

/// Somebody joins or leaves so often, in a storm.
const BETWEEN: Duration = Duration::from_secs(2);

/// All of them.
pub const ALL: &[Nemesis] = &[
    Nemesis { name: "rebalance-storm", strike: rebalance_storm },
    Nemesis { name: "broker-kill", strike: broker_kill },
    Nemesis { name: "broker-restart", strike: broker_restart },
    Nemesis { name: "paused-member", strike: paused_member },
    Nemesis { name: "more-partitions", strike: more_partitions },
    Nemesis { name: "reset", strike: reset },
];

/// The broker, and who watches it from beside the product.
pub struct Cluster {
    server: Server,
    offset_auditor: OffsetAuditor,
    /// How many records lay below committed offsets, in all looks together.
    pub checked: u64,
    /// Those of them that were not finished.
    pub passed: Vec<String>,
    /// Keys that have changed their partition.
    pub moved: BTreeSet<String>,
}

impl Cluster {
    /// The private instance that is up, for the run in this place.
    pub fn find(environment: &Environment<'_>) -> Result<Self> {
        let server = Server::find()?;
        let url = &environment.urls().transport;
        let prefix = url.split(['?', '&']).find_map(|pair| pair.strip_prefix("prefix="));
        let offset_auditor =
            OffsetAuditor::start(environment, server.address(), prefix.context("the prefix on the broker")?)?;
        Ok(Self { server, offset_auditor, checked: 0, passed: Vec::new(), moved: BTreeSet::new() })
    }

    /// First the offsets, then the database: what comes in between does not matter.
    pub fn audit(&mut self, environment: &mut Environment<'_>) -> Result<()> {
        let sample = self.offset_auditor.look()?;
        let traces = Traces::read(environment.store()?)?;
        let (checked, found) = passed(&self.offset_auditor.records, &sample, &traces);
        self.checked += checked;
        self.passed.extend(found);
        Ok(())
    }

    /// Waits until the groups have come to the end of everything.
    pub fn read_to_the_end(&mut self, limit: Duration) -> Result<()> {
        self.until(limit, "the groups come to the end", |sample| sample.groups.values().all(|group| group.lag() == 0))
            .map(drop)
    }

    fn until(&mut self, limit: Duration, what: &str, so: impl Fn(&Sample) -> bool) -> Result<Sample> {
        let deadline = Instant::now() + limit;
        loop {
            let sample = self.offset_auditor.look()?;
            if so(&sample) {
                return Ok(sample);
            }
            if Instant::now() > deadline {
                bail!("not within {limit:?}: {what}; last seen: {sample:?}");
            }
        }
    }

    fn until_members(&mut self, count: usize) -> Result<Sample> {
        let what = format!("every group has {count} members");
        self.until(PATIENCE, &what, |sample| sample.groups.values().all(|group| group.members == count))
    }
}

/// Every two seconds somebody joins or leaves, now and then by SIGKILL. Counts those who joined and got work before they
/// left.
fn rebalance_storm(cluster: &mut ClusterUnderTest<'_>) -> Result<u64> {
    let rounds = 12;
    let (stay, mut struck, mut leaving) = (cluster.nodes(), 0, Vec::new());
    cluster.work_goes_on()?;
    cluster.join()?;
    for round in 0..rounds {
        thread::sleep(BETWEEN);
        cluster.join()?;
        thread::sleep(BETWEEN);
        // the one that has been there longest of those that came
        let (pid, left) = cluster.leave(stay, round % 3 == 2)?;
        struck += u64::from(cluster.has_worked(pid));
        leaving.extend(left);
        if round % 3 == 0 {
            cluster.audit_offsets()?;
        }
    }
    for mut node in leaving {
        node.expect_success(PATIENCE).context("leave in good order")?;
    }
    // if most of them got nothing, the storm was none
    Ok(if struck * 2 >= rounds { struck } else { 0 })
}

fn broker_kill(cluster: &mut ClusterUnderTest<'_>) -> Result<u64> {
    restarts(cluster, 3, Signal::SIGKILL)
}

fn broker_restart(cluster: &mut ClusterUnderTest<'_>) -> Result<u64> {
    restarts(cluster, 2, Signal::SIGTERM)
}

fn restarts(cluster: &mut ClusterUnderTest<'_>, rounds: u64, signal: Signal) -> Result<u64> {
    for _ in 0..rounds {
        cluster.work_goes_on()?;
        cluster.kafka()?.0.server.restart(signal)?;
        cluster.work_goes_on()?;
        cluster.audit_offsets()?;
    }
    Ok(rounds)
}

/// Each in turn sleeps until the group has gone on without it and the others have done some of its work.
fn paused_member(cluster: &mut ClusterUnderTest<'_>) -> Result<u64> {
    let rounds = cluster.nodes().max(3);
    let mut struck = 0;
    for round in 0..rounds {
        let all = cluster.nodes();
        cluster.kafka()?.0.until_members(all)?;
        cluster.work_goes_on()?;
        cluster.freeze(round % all)?;
        cluster.kafka()?.0.until_members(all - 1)?;
        cluster.work_goes_on()?;
        cluster.audit_offsets()?;
        cluster.thaw(round % all)?;
        struck += 1;
        // now it finishes what it was about to do, and writes down what it can
        cluster.work_goes_on()?;
        cluster.audit_offsets()?;
    }
    Ok(struck)
}

/// Counts the topics that got more partitions, once something lies in the new ones and is finished.
fn more_partitions(cluster: &mut ClusterUnderTest<'_>) -> Result<u64> {
    let mut struck = 0;
    let mut before = 4;
    for after in [8, 16] {
        cluster.work_goes_on()?;
        let (kafka, environment) = cluster.kafka()?;
        kafka.offset_auditor.grow(environment, kafka.server.address(), after)?;
        let is_new = |partition: i32| usize::try_from(partition).is_ok_and(|partition| partition >= before);
        let sample = kafka.until(PATIENCE, "the new partitions are worked on", |sample| {
            let offsets = || sample.groups.values().flat_map(|group| &group.offsets);
            let worked: BTreeSet<&str> = offsets()
                .filter(|(_, partition, committed, _)| is_new(*partition) && *committed > 0)
                .map(|(topic, ..)| topic.as_str())
                .collect();
            offsets().all(|(topic, ..)| worked.contains(topic.as_str()))
        })?;
        struck += sample.groups.values().flat_map(|group| &group.offsets).filter(|(_, n, ..)| *n == 0).count() as u64;
        before = after;
        cluster.audit_offsets()?;
    }
    cluster.work_goes_on()?;
    let (kafka, _) = cluster.kafka()?;
    kafka.offset_auditor.look()?;
    let (moved, all) = kafka.offset_auditor.keys_of_line();
    // neither of a run that moved no key nor of one that moved all of them anything is known about order
    if moved.is_empty() || moved.len() == all.len() {
        return Ok(0);
    }
    kafka.moved = moved;
    Ok(struck)
}

/// Longer than an endpoint looks at a group that was set back until it believes it.
const DOUBT: Duration = Duration::from_secs(6);

/// Everything is read once more, but not before somebody says that it is meant. Counts the resets after which at least a
/// hundred finished records came again.
fn reset(cluster: &mut ClusterUnderTest<'_>) -> Result<u64> {
    let mut struck = 0;
    for _ in 0..3 {
        cluster.work_goes_on()?;
        cluster.work_goes_on()?;
        let count = cluster.stop_all()?;
        let (kafka, environment) = cluster.kafka()?;
        let before = kafka.until_members(0)?;
        kafka.offset_auditor.rewind(environment, kafka.server.address())?;
        let rewound = kafka.offset_auditor.look()?;
        let finished: i64 =
            before.groups.values().flat_map(|group| &group.offsets).map(|(.., at, _)| *at.max(&0)).sum();
        let left: i64 = rewound.groups.values().flat_map(|group| &group.offsets).map(|(.., at, _)| *at.max(&0)).sum();
        for _ in 0..count {
            cluster.join()?;
        }
        let (kafka, _) = cluster.kafka()?;
        kafka.until_members(count)?;
        thread::sleep(DOUBT);
        let halted = kafka.offset_auditor.look()?;
        let read: i64 = halted.groups.values().flat_map(|group| &group.offsets).map(|(.., at, _)| *at.max(&0)).sum();
        // a partition that came to life in the last second may have had no place in the store yet
        ensure!(read * 2 < finished, "groups that were set back went on by themselves: {halted:?}");
        cluster.stop_all()?;
        let (kafka, environment) = cluster.kafka()?;
        kafka.until_members(0)?;
        kafka.offset_auditor.allow(environment)?;
        struck += u64::from(left == 0 && finished >= 100);
        for _ in 0..count {
            cluster.join()?;
        }
        let (kafka, _) = cluster.kafka()?;
        kafka.until(PATIENCE, "what was read before is read again", |sample| {
            let reached = |(name, group): (&String, &offset_auditor::Group)| {
                let then = before.groups.get(name).map(|group| &group.offsets);
                let now =
                    |topic: &str, n: i32| group.offsets.iter().find(|(t, p, ..)| t == topic && *p == n).map(|at| at.2);
                then.into_iter().flatten().all(|(topic, n, at, _)| now(topic, *n).is_some_and(|now| now >= *at))
            };
            sample.groups.iter().all(reached)
        })?;
        cluster.audit_offsets()?;
    }
    Ok(struck)
}
