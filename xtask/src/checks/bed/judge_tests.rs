//! Planted violations of each kind.

use super::{Judgement, judge};
use crate::checks::bed::facts::{Audit, Effect, Facts, SagaRow, Sent};

fn effect(id: i64, kind: &str, key: &str, n: i64, due: Option<i64>) -> Effect {
    Effect { id, kind: kind.into(), key: key.into(), n, at: 1000, due }
}

fn change(seq: i64, op: &str, instance: &str, versions: (Option<i64>, Option<i64>)) -> Audit {
    let (kind, key, instance) = (Some("chaos/tally".into()), Some("k".into()), Some(instance.into()));
    let (old_version, new_version) = versions;
    Audit { seq, tbl: "saga".into(), op: op.into(), kind, key, instance, old_version, new_version, due: None, at: 1 }
}

/// An `add`, a `remind` and two `step`s, as they should be.
fn sound() -> Facts {
    let sent = |n, kind: &str, key: &str| Sent { n, kind: kind.into(), key: key.into(), accepted: true };
    let saga =
        |kind: &str, version, state: &str| SagaRow { kind: kind.into(), key: "k".into(), version, state: state.into() };
    Facts {
        sent: vec![sent(0, "add", "k"), sent(2, "remind", "k"), sent(1, "step", "s"), sent(9, "step", "s")],
        effects: vec![
            effect(1, "note:tally", "k", 0, None),
            effect(2, "asked", "k", 2, Some(900)),
            effect(3, "rang", "k", 2, None),
            effect(4, "step", "s", 1, None),
            effect(5, "step", "s", 9, None),
        ],
        sagas: vec![saga("chaos/alarm", 2, r#"{"rung":[2]}"#), saga("chaos/tally", 1, r#"{"seen":[0]}"#)],
        audit: vec![change(1, "insert", "A", (None, Some(1)))],
        ..Facts::default()
    }
}

fn after(change: impl FnOnce(&mut Facts)) -> Judgement {
    let mut facts = sound();
    change(&mut facts);
    judge(&facts)
}

#[test]
fn what_is_sound_is_clean() {
    let judgement = judge(&sound());
    assert!(judgement.is_clean(), "{judgement:?}");
    assert_eq!(judgement.messages, 4);
}

#[test]
fn each_violation_is_seen_as_what_it_is() {
    assert_eq!(after(|f| f.effects.retain(|e| e.kind != "note:tally")).lost, 1);
    assert_eq!(after(|f| f.effects.push(effect(6, "note:tally", "k", 0, None))).duplicated, 1);
    assert_eq!(after(|f| f.effects.push(effect(6, "poison", "", 7, None))).ghosts, 1);
    assert_eq!(after(|f| f.dead.push(("handler failed".into(), 0))).ghosts, 1);
    assert_eq!(after(|f| f.effects[1].due = Some(1001)).early, 1);
    assert_eq!(after(|f| f.effects.swap(3, 4)).order_breaks, 1);
    let moved = |key: &'static str| {
        after(move |f| {
            f.effects.swap(3, 4);
            f.moved.insert(key.into());
        })
    };
    assert_eq!((moved("s").order_breaks, moved("t").order_breaks), (0, 1), "but for keys that nobody promised");
    assert_eq!(after(|f| f.sagas[1].version = 2).order_breaks, 1, "a version without a message");
}

#[test]
fn nobody_knows_about_what_was_not_accepted_but_half_of_it_is_wrong() {
    let forget = |f: &mut Facts| f.sent[0].accepted = false;
    assert!(after(forget).is_clean(), "all of it is there");
    let none = after(|f| {
        forget(f);
        f.effects.retain(|e| e.kind != "note:tally");
        f.sagas.pop();
    });
    assert!(none.is_clean(), "{none:?}");
    let half = after(|f| {
        forget(f);
        f.effects.retain(|e| e.kind != "note:tally");
    });
    assert_eq!(half.lost, 1);
}

#[test]
fn a_saga_is_one_chain_of_one_life_at_a_time() {
    let breaks = |more: &[Audit]| after(|f| f.audit.extend(more.iter().cloned())).order_breaks;
    assert_eq!(breaks(&[change(2, "update", "A", (Some(1), Some(3)))]), 0, "folded writes skip versions");
    assert_eq!(breaks(&[change(2, "update", "A", (Some(2), Some(3)))]), 1, "a lost update");
    assert_eq!(breaks(&[change(2, "update", "A", (Some(1), Some(1)))]), 1, "a version twice");
    assert_eq!(breaks(&[change(2, "insert", "B", (None, Some(1)))]), 1, "two lives at once");
    let end = change(2, "delete", "A", (Some(1), None));
    assert_eq!(breaks(&[end.clone(), change(3, "insert", "B", (None, Some(1)))]), 0, "a second life");
    assert_eq!(breaks(&[end, change(3, "insert", "A", (None, Some(2)))]), 1, "a life that came back");
}
