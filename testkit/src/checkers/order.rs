use super::Report;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A message of a producer's sequence for one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Produced {
    /// Who sent it.
    pub producer: String,
    /// Under which order key.
    pub key: String,
    /// The how manieth of this producer and key.
    pub n: u64,
}

/// A message that was handled, in the order of the commits of its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handled {
    /// Grows in commit order, within one key.
    pub seq: i64,
    /// Which message.
    #[serde(flatten)]
    pub message: Produced,
}

/// Per producer and key, messages were handled in the order in which they were sent, without gaps, but for dead ones.
///
/// Faults: `order_breaks` (an earlier one after a later one), `duplicated`, `lost` (neither handled nor dead), `ghosts`
/// (handled, but never sent), `both` (handled and dead).
pub fn check_order_per_key(produced: &[Produced], handled: &[Handled], dead: &[Produced]) -> Report {
    let mut report = Report::new(&["order_breaks", "duplicated", "lost", "ghosts", "both"]);
    let sent: HashSet<&Produced> = produced.iter().collect();
    let buried: HashSet<&Produced> = dead.iter().collect();
    let mut lines: BTreeMap<(&str, &str), Vec<&Handled>> = BTreeMap::new();
    for row in handled {
        lines.entry((&row.message.producer, &row.message.key)).or_default().push(row);
    }
    let mut times: HashMap<&Produced, u64> = HashMap::new();
    let mut compared = 0;
    for ((producer, key), mut rows) in lines {
        rows.sort_by_key(|row| row.seq);
        let mut highest = None;
        for row in rows {
            let n = row.message.n;
            let count = times.entry(&row.message).or_default();
            *count += 1;
            if *count == 2 {
                report.fault("duplicated", || format!("{n} of {producer}, key {key}"));
            }
            if *count == 1 {
                if let Some(before) = highest {
                    compared += 1;
                    if n < before {
                        report.fault("order_breaks", || format!("{n} after {before} of {producer}, key {key}"));
                    }
                }
                highest = highest.max(Some(n));
            }
            if !sent.contains(&row.message) {
                report.fault("ghosts", || format!("nobody sent {n} of {producer}, key {key}"));
            }
            if buried.contains(&row.message) && *count == 1 {
                report.fault("both", || format!("{n} of {producer}, key {key} is handled and dead"));
            }
        }
    }
    for message in &sent {
        if !times.contains_key(message) && !buried.contains(message) {
            report.fault("lost", || format!("{} of {}, key {}", message.n, message.producer, message.key));
        }
    }
    report.saw("messages", produced.len());
    report.saw("pairs", compared);
    // one message per key has no order
    report.judge(compared)
}

#[cfg(test)]
mod tests {
    use super::{super::Verdict, *};

    fn produced(key: &str, n: u64) -> Produced {
        Produced { producer: "p".into(), key: key.into(), n }
    }

    /// Two keys, interleaved; 2 of `a` is dead.
    fn good() -> (Vec<Produced>, Vec<Handled>, Vec<Produced>) {
        let sent: Vec<Produced> = (0..4).flat_map(|n| [produced("a", n), produced("b", n)]).collect();
        let alive = sent.iter().filter(|message| **message != produced("a", 2)).cloned();
        let handled = (0..).zip(alive).map(|(seq, message)| Handled { seq, message }).collect();
        (sent, handled, vec![produced("a", 2)])
    }

    fn finds(fault: &str, plant: impl FnOnce(&mut Vec<Produced>, &mut Vec<Handled>, &mut Vec<Produced>)) {
        let (mut sent, mut handled, mut dead) = good();
        plant(&mut sent, &mut handled, &mut dead);
        let report = check_order_per_key(&sent, &handled, &dead);
        assert_eq!((report.verdict, report.count(fault), report.examples.len()), (Verdict::False, 1, 1), "{report:?}");
    }

    #[test]
    fn a_sound_run_holds_and_one_without_order_is_vacuous() {
        let (sent, mut handled, dead) = good();
        handled.reverse();
        let report = check_order_per_key(&sent, &handled, &dead);
        assert!(report.holds(), "rows come in any order, `seq` decides: {report:?}");
        assert_eq!((report.count("messages"), report.count("pairs")), (8, 5));
        assert_eq!(check_order_per_key(&[], &[], &[]).verdict, Verdict::Vacuous);
        let one = [Handled { seq: 1, message: produced("a", 0) }];
        assert_eq!(check_order_per_key(&[produced("a", 0)], &one, &[]).verdict, Verdict::Vacuous);
    }

    #[test]
    fn every_planted_violation_is_found() {
        finds("order_breaks", |_, handled, _| {
            // the last two of key b change places
            let of_b: Vec<usize> = (0..handled.len()).filter(|at| handled[*at].message.key == "b").collect();
            let (one, two) = (of_b[2], of_b[3]);
            (handled[one].seq, handled[two].seq) = (handled[two].seq, handled[one].seq);
        });
        finds("duplicated", |_, handled, _| {
            let again = Handled { seq: 100, ..handled[0].clone() };
            handled.push(again);
        });
        finds("lost", |_, handled, _| drop(handled.remove(3)));
        finds("lost", |_, _, dead| dead.clear());
        finds("ghosts", |sent, _, _| sent.retain(|message| *message != produced("b", 1)));
        finds("both", |_, _, dead| dead.push(produced("b", 1)));
    }
}
