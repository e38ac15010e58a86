//! The judge: pure, and without a line of the product's code.
//!
//! Every accepted message has a list of things that must be there exactly once; everything that is there must be on
//! somebody's list.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::facts::{Facts, SagaRow};

/// What a run was found to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Accepted messages.
    pub messages: u64,
    /// Things that should be there and are not.
    pub lost: u64,
    /// Things that are there more than once, each one too many.
    pub duplicated: u64,
    /// Things that nobody asked for.
    pub ghosts: u64,
    /// Timeouts that took effect before they were due.
    pub early: u64,
    /// Ordered messages out of order, and sagas whose versions are not a chain.
    pub order_breaks: u64,
    /// The first of each, in words.
    pub examples: Vec<String>,
}

type Thing = (String, String, i64);

impl Judgement {
    /// Nothing wrong.
    pub fn is_clean(&self) -> bool {
        self.lost + self.duplicated + self.ghosts + self.early + self.order_breaks == 0
    }

    /// Adds another run's.
    pub fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.ghosts += other.ghosts;
        self.early += other.early;
        self.order_breaks += other.order_breaks;
        self.examples.extend(other.examples);
    }

    fn example(&mut self, text: String) {
        if self.examples.len() < 10 {
            self.examples.push(text);
        }
    }
}

/// Judges a run that has come to rest.
pub fn judge(facts: &Facts) -> Judgement {
    let mut judgement =
        Judgement { messages: facts.sent.iter().filter(|sent| sent.accepted).count() as u64, ..Judgement::default() };
    presence(facts, &mut judgement);
    timers(facts, &mut judgement);
    order(facts, &mut judgement);
    chains(facts, &mut judgement);
    judgement
}

/// What must be there once a message of this kind is through.
fn wanted(kind: &str, key: &str, n: i64) -> Vec<Thing> {
    let thing = |what: &str, key: &str| (what.to_owned(), key.to_owned(), n);
    match kind {
        "add" => vec![thing("seen:chaos/tally", key), thing("note:tally", key)],
        "own" => vec![thing("seen:chaos/tally", key), thing("note:tally", key), thing("own", key)],
        "happened" => vec![
            thing("seen:chaos/tally", key),
            thing("note:tally", key),
            thing("seen:chaos/watcher", key),
            thing("note:watcher", key),
            thing("heard", key),
        ],
        "half" => vec![thing("note:pair", key)],
        "remind" => {
            let rang = if n % 2 == 0 { "rang" } else { "note:alarm" };
            vec![thing("asked", key), thing("rung:chaos/alarm", key), thing(rang, key)]
        }
        "flaky" => vec![thing("flaky", "")],
        "poison" => vec![thing("dead:permanent failure", "")],
        "step" => vec![thing("step", key)],
        _ => Vec::new(),
    }
}

fn presence(facts: &Facts, judgement: &mut Judgement) {
    let mut there: BTreeMap<Thing, u64> = BTreeMap::new();
    let mut put = |what: String, key: &str, n: i64| *there.entry((what, key.to_owned(), n)).or_default() += 1;
    for effect in &facts.effects {
        put(effect.kind.clone(), &effect.key, effect.n);
    }
    for saga in &facts.sagas {
        for (list, n) in told(saga) {
            put(format!("{list}:{}", saga.kind), &saga.key, n);
        }
    }
    for (reason, n) in &facts.dead {
        put(format!("dead:{reason}"), "", *n);
    }
    for sent in &facts.sent {
        let wanted = wanted(&sent.kind, &sent.key, sent.n);
        let counts: Vec<u64> = wanted.iter().map(|thing| there.remove(thing).unwrap_or(0)).collect();
        // nobody knows whether it was accepted: all of it or nothing
        if !sent.accepted && counts.iter().all(|count| *count == 0) {
            continue;
        }
        for (thing, count) in wanted.iter().zip(counts) {
            if count == 0 {
                judgement.lost += 1;
                judgement.example(format!("lost: {thing:?} of {sent:?}"));
            } else if count > 1 {
                judgement.duplicated += count - 1;
                judgement.example(format!("{count} times: {thing:?} of {sent:?}"));
            }
        }
    }
    for (thing, count) in there {
        judgement.ghosts += count;
        judgement.example(format!("ghost: {thing:?}, {count} times"));
    }
}

/// The numbers in the lists of a saga's state. A `pair` that is still there has taken a half twice, or lost one.
fn told(saga: &SagaRow) -> Vec<(&'static str, i64)> {
    let state: Value = serde_json::from_str(&saga.state).unwrap_or_default();
    let list = |name: &'static str| -> Vec<(&'static str, i64)> {
        let numbers = state[name].as_array().into_iter().flatten().filter_map(Value::as_i64);
        numbers.map(|n| (name, n)).collect()
    };
    match saga.kind.as_str() {
        "chaos/tally" | "chaos/watcher" => list("seen"),
        "chaos/alarm" => list("rung"),
        _ => vec![("left over", -1)],
    }
}

fn timers(facts: &Facts, judgement: &mut Judgement) {
    let rings = |kind: &str| kind == "rang" || kind == "note:alarm";
    for asked in facts.effects.iter().filter(|effect| effect.kind == "asked") {
        let (Some(due), n) = (asked.due, asked.n) else { continue };
        for rang in facts.effects.iter().filter(|effect| rings(&effect.kind) && effect.n == n) {
            if rang.at < due {
                judgement.early += 1;
                judgement.example(format!("early by {} ms: timeout {n}", due - rang.at));
            }
        }
    }
    // no timer of this workload is ever cancelled, so each that goes away has taken effect
    for gone in facts.audit.iter().filter(|audit| audit.tbl == "timer") {
        if gone.due.is_some_and(|due| gone.at < due) {
            judgement.early += 1;
            judgement.example(format!("a timer row went away before it was due: {gone:?}"));
        }
    }
}

/// The ordered endpoint: under each key the numbers must grow.
fn order(facts: &Facts, judgement: &mut Judgement) {
    let mut last: BTreeMap<&str, i64> = BTreeMap::new();
    for step in facts.effects.iter().filter(|effect| effect.kind == "step" && !facts.moved.contains(&effect.key)) {
        let before = last.insert(&step.key, step.n).unwrap_or(-1);
        if before >= step.n {
            judgement.order_breaks += 1;
            judgement.example(format!("order: {} after {before} under {}", step.n, step.key));
        }
    }
}

/// Sagas: one life at a time, versions that only grow, and as many of them as messages.
fn chains(facts: &Facts, judgement: &mut Judgement) {
    let mut lives: BTreeMap<(&str, &str), (&str, i64)> = BTreeMap::new();
    let mut ended: BTreeSet<&str> = BTreeSet::new();
    for row in facts.audit.iter().filter(|audit| audit.tbl == "saga") {
        let (Some(kind), Some(key), Some(instance)) = (&row.kind, &row.key, &row.instance) else { continue };
        let at = (kind.as_str(), key.as_str());
        let life = lives.get(&at).copied();
        let good = match (row.op.as_str(), life) {
            ("insert", None) => !ended.contains(instance.as_str()),
            ("update", Some((living, version))) => {
                living == instance && row.old_version == Some(version) && row.new_version > row.old_version
            }
            ("delete", Some((living, version))) => living == instance && row.old_version == Some(version),
            _ => false,
        };
        if !good {
            judgement.order_breaks += 1;
            judgement.example(format!("a saga's versions are not a chain: {row:?}, before it {life:?}"));
        }
        if row.op == "delete" {
            lives.remove(&at);
            ended.insert(instance);
        } else {
            lives.insert(at, (instance, row.new_version.unwrap_or_default()));
        }
    }
    for saga in &facts.sagas {
        let asked = facts.effects.iter().filter(|e| e.kind == "asked" && e.key == saga.key).count();
        let messages = told(saga).len() + if saga.kind == "chaos/alarm" { asked } else { 0 };
        if saga.kind != "chaos/pair" && saga.version != messages as i64 {
            judgement.order_breaks += 1;
            judgement.example(format!("{} {} has version {}, {messages} messages", saga.kind, saga.key, saga.version));
        }
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
