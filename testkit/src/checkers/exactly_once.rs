use super::Report;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

/// A message that the generator sent: a line of its own log, written before and completed after the send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Its id.
    pub id: String,
    /// What the generator was told.
    pub outcome: SentOutcome,
    /// The endpoints that were to handle it.
    pub routes: Vec<String>,
}

/// What a sender was told. A timeout, a dropped future, a connection lost in a commit are unknown, never failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SentOutcome {
    /// It is kept.
    Accepted,
    /// Perhaps.
    Unknown,
    /// It is not.
    Failed,
}

/// A row that a handler wrote in its transaction; its table has no unique constraint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// The message that was handled.
    pub id: String,
    /// Where.
    pub endpoint: String,
    /// The messages that the handler sent on.
    #[serde(default)]
    pub emitted: Vec<String>,
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dead {
    /// The message.
    pub id: String,
    /// Whose.
    pub endpoint: String,
    /// Why.
    pub reason: String,
}

#[derive(Default)]
struct Found {
    effects: u64,
    dead: u64,
}

/// Each accepted message has one effect at each of its endpoints, or is a dead letter there with a reason.
///
/// Faults: `lost` (neither; or sent on by a handler and seen nowhere), `duplicated` (two effects), `both` (effect and dead
/// letter), `ghosts` (an effect of a message that failed, or that nobody sent), `half` (of a send with unknown outcome,
/// some endpoints have it and others not), `no_reason`.
pub fn check_exactly_once(sent: &[Sent], effects: &[Effect], dead: &[Dead]) -> Report {
    let mut report = Report::new(&["lost", "duplicated", "both", "ghosts", "half", "no_reason"]);
    let mut found: HashMap<(&str, &str), Found> = HashMap::new();
    let mut seen: HashSet<&str> = HashSet::new();
    let mut known: HashSet<&str> = HashSet::new();
    for effect in effects {
        found.entry((&effect.id, &effect.endpoint)).or_default().effects += 1;
        seen.insert(&effect.id);
        known.extend(effect.emitted.iter().map(String::as_str));
    }
    for letter in dead {
        found.entry((&letter.id, &letter.endpoint)).or_default().dead += 1;
        seen.insert(&letter.id);
        if letter.reason.trim().is_empty() {
            report.fault("no_reason", || format!("{} at {}", letter.id, letter.endpoint));
        }
    }
    for ((id, endpoint), found) in &found {
        if found.effects > 1 {
            report.fault("duplicated", || format!("{id} has {} effects at {endpoint}", found.effects));
        }
        if found.effects > 0 && found.dead > 0 {
            report.fault("both", || format!("{id} is handled and a dead letter at {endpoint}"));
        }
    }
    for message in sent {
        let routes = message.routes.iter();
        let there = routes.filter(|route| found.contains_key(&(message.id.as_str(), route.as_str()))).count();
        match message.outcome {
            SentOutcome::Accepted => {
                report.saw("accepted", 1);
                for route in &message.routes {
                    if !found.contains_key(&(message.id.as_str(), route.as_str())) {
                        report.fault("lost", || format!("{} at {route}", message.id));
                    }
                }
            }
            SentOutcome::Unknown => {
                report.saw("unknown", 1);
                if there > 0 && there < message.routes.len() {
                    report.fault("half", || format!("{} is at {there} of {:?}", message.id, message.routes));
                }
            }
            SentOutcome::Failed => {
                report.saw("failed", 1);
                if seen.contains(message.id.as_str()) {
                    report.fault("ghosts", || format!("{} had failed", message.id));
                }
            }
        }
        known.insert(&message.id);
    }
    for effect in effects {
        for id in effect.emitted.iter().filter(|id| !seen.contains(id.as_str())) {
            report.fault("lost", || format!("{id}, sent on by {} at {}", effect.id, effect.endpoint));
        }
    }
    for id in seen.iter().filter(|id| !known.contains(*id)) {
        report.fault("ghosts", || format!("nobody sent {id}"));
    }
    report.saw("effects", effects.len());
    report.saw("dead", dead.len());
    let judged = sent.len();
    report.judge(judged)
}

#[cfg(test)]
mod tests {
    use super::{super::Verdict, *};

    fn sent(id: &str, outcome: SentOutcome, routes: &[&str]) -> Sent {
        Sent { id: id.into(), outcome, routes: routes.iter().map(|route| (*route).into()).collect() }
    }

    fn effect(id: &str, endpoint: &str, emitted: &[&str]) -> Effect {
        Effect { id: id.into(), endpoint: endpoint.into(), emitted: emitted.iter().map(|id| (*id).into()).collect() }
    }

    fn dead(id: &str, endpoint: &str, reason: &str) -> Dead {
        Dead { id: id.into(), endpoint: endpoint.into(), reason: reason.into() }
    }

    fn good() -> (Vec<Sent>, Vec<Effect>, Vec<Dead>) {
        let sent = vec![
            sent("a", SentOutcome::Accepted, &["x", "y"]),
            sent("b", SentOutcome::Accepted, &["x"]),
            sent("c", SentOutcome::Unknown, &["x", "y"]),
            sent("d", SentOutcome::Unknown, &["x"]),
            sent("e", SentOutcome::Failed, &["x"]),
        ];
        let effects = vec![
            effect("a", "x", &["a1"]),
            effect("a", "y", &[]),
            effect("c", "x", &[]),
            effect("c", "y", &[]),
            effect("a1", "z", &[]),
        ];
        (sent, effects, vec![dead("b", "x", "handler failed")])
    }

    #[test]
    fn a_sound_run_holds_and_an_empty_one_is_vacuous() {
        let (sent, effects, dead) = good();
        let report = check_exactly_once(&sent, &effects, &dead);
        assert!(report.holds(), "{report:?}");
        assert_eq!((report.count("accepted"), report.count("effects")), (2, 5));
        assert_eq!(check_exactly_once(&[], &[], &[]).verdict, Verdict::Vacuous);
    }

    /// One planted violation, one fault of that name, and no other.
    fn finds(fault: &str, plant: impl FnOnce(&mut Vec<Sent>, &mut Vec<Effect>, &mut Vec<Dead>)) {
        let (mut sent, mut effects, mut dead) = good();
        plant(&mut sent, &mut effects, &mut dead);
        let report = check_exactly_once(&sent, &effects, &dead);
        assert_eq!((report.verdict, report.count(fault), report.examples.len()), (Verdict::False, 1, 1), "{report:?}");
    }

    #[test]
    fn every_planted_violation_is_found() {
        finds("lost", |_, effects, _| drop(effects.remove(1)));
        finds("lost", |_, _, dead| dead.clear());
        finds("lost", |_, effects, _| drop(effects.pop()));
        finds("lost", |_, effects, _| effects[1].endpoint = "z".into());
        finds("duplicated", |_, effects, _| effects.push(effect("a", "y", &[])));
        finds("both", |_, _, dead| dead.push(dead_letter_of("a")));
        finds("ghosts", |_, effects, _| effects.push(effect("e", "x", &[])));
        finds("ghosts", |_, effects, _| effects.push(effect("never", "x", &[])));
        finds("ghosts", |_, _, dead| dead.push(super::tests::dead("never", "x", "why")));
        finds("half", |_, effects, _| drop(effects.remove(2)));
        finds("no_reason", |_, _, dead| dead[0].reason = " ".into());
    }

    fn dead_letter_of(id: &str) -> Dead {
        dead(id, "x", "why")
    }
}
