use super::Report;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// A timer that was set by a transaction that committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requested {
    /// Its id.
    pub id: String,
    /// When it was due, by the database's clock, in microseconds.
    pub due: i64,
    /// Whether it was cancelled, or its saga ended, at some time: then it may have fired before, or not at all.
    #[serde(default)]
    pub ended: bool,
}

/// A timer that took effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fired {
    /// Its id.
    pub id: String,
    /// When, by the database's clock, in microseconds.
    pub at: i64,
}

/// Each timer takes effect once, and not before its time.
///
/// Faults: `early`, `lost`, `twice`, `ghosts` (never requested), `late` (by more than `at_most_late` microseconds, if
/// given). `late_max` is the greatest lateness that was seen.
pub fn check_timers(requested: &[Requested], fired: &[Fired], at_most_late: Option<i64>) -> Report {
    let mut report = Report::new(&["early", "lost", "twice", "ghosts", "late"]);
    let mut times: HashMap<&str, Vec<i64>> = HashMap::new();
    for fire in fired {
        times.entry(&fire.id).or_default().push(fire.at);
    }
    let mut latest = 0;
    for timer in requested {
        let Some(fires) = times.remove(timer.id.as_str()) else {
            if timer.ended {
                report.saw("ended", 1);
            } else {
                report.fault("lost", || timer.id.clone());
            }
            continue;
        };
        if fires.len() > 1 {
            report.fault("twice", || format!("{} fired {} times", timer.id, fires.len()));
        }
        for at in fires {
            let late = at - timer.due;
            latest = latest.max(late);
            if late < 0 {
                report.fault("early", || format!("{} by {} us", timer.id, -late));
            } else if at_most_late.is_some_and(|most| late > most) {
                report.fault("late", || format!("{} by {late} us", timer.id));
            }
        }
    }
    for id in times.keys() {
        report.fault("ghosts", || format!("nobody asked for {id}"));
    }
    report.saw("requested", requested.len());
    report.saw("fired", fired.len());
    report.saw("late_max", usize::try_from(latest).unwrap_or(0));
    // timers that all ended before they fired show nothing
    let judged = fired.len();
    report.judge(judged)
}

#[cfg(test)]
mod tests {
    use super::{super::Verdict, *};

    fn requested(id: &str, due: i64, ended: bool) -> Requested {
        Requested { id: id.into(), due, ended }
    }

    fn fired(id: &str, at: i64) -> Fired {
        Fired { id: id.into(), at }
    }

    fn good() -> (Vec<Requested>, Vec<Fired>) {
        let all = vec![
            requested("a", 10, false),
            requested("b", 20, false),
            requested("c", 30, true),
            requested("d", 5, true),
        ];
        (all, vec![fired("b", 20), fired("a", 12), fired("d", 5)])
    }

    fn finds(fault: &str, plant: impl FnOnce(&mut Vec<Requested>, &mut Vec<Fired>)) {
        let (mut requested, mut fired) = good();
        plant(&mut requested, &mut fired);
        let report = check_timers(&requested, &fired, Some(100));
        assert_eq!((report.verdict, report.count(fault), report.examples.len()), (Verdict::False, 1, 1), "{report:?}");
    }

    #[test]
    fn a_sound_run_holds_and_one_without_fires_is_vacuous() {
        let (requested, fired) = good();
        let report = check_timers(&requested, &fired, Some(100));
        assert!(report.holds(), "{report:?}");
        assert_eq!((report.count("fired"), report.count("late_max"), report.count("ended")), (3, 2, 1));
        assert_eq!(check_timers(&[], &[], None).verdict, Verdict::Vacuous);
        assert_eq!(check_timers(&requested[2..], &[], None).verdict, Verdict::Vacuous);
    }

    #[test]
    fn every_planted_violation_is_found() {
        finds("early", |_, fired| fired[0].at = 19);
        finds("lost", |_, fired| drop(fired.remove(0)));
        finds("twice", |_, fired| fired.push(super::tests::fired("a", 13)));
        finds("ghosts", |_, fired| fired.push(super::tests::fired("x", 13)));
        finds("late", |_, fired| fired[0].at = 121);
    }
}
