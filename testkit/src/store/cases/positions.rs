//! How far an endpoint has come in a log that others can set back.

use crate::store::Fixture;
use sagabus_core::{LogPartition, OffsetStore, POSITION_RESET, Position, PositionReset};
use std::{sync::Arc, time::Duration};

fn place(log: &str, partition: i32) -> LogPartition {
    LogPartition { log: log.into(), partition }
}

fn at(claimed: &Position, base: i64) -> Position {
    Position { handled_below: base, fingerprint: format!("before {base}"), ..claimed.clone() }
}

fn kept(fixture: &Fixture) -> Arc<dyn OffsetStore> {
    fixture.store.offsets().expect("a store keeps positions")
}

async fn claim(fixture: &Fixture, places: &[LogPartition]) -> Vec<Position> {
    let claimed = kept(fixture).claim(&fixture.owner.endpoint, places).await.expect("claim");
    assert_eq!(claimed.iter().map(|p| p.partition.clone()).collect::<Vec<_>>(), places, "one each, in order");
    claimed
}

async fn raise(fixture: &Fixture, positions: &[Position]) -> Vec<bool> {
    kept(fixture).advance(&fixture.owner.endpoint, positions).await.expect("raise")
}

async fn listed(fixture: &Fixture) -> Vec<Position> {
    fixture.store.admin().positions(&fixture.owner.endpoint).await.expect("positions")
}

fn reset(log: &str, partition: Option<i32>, to: i64) -> PositionReset {
    PositionReset { log: log.into(), partition, to, by: "ann".into(), why: "a replay, \u{1} \"on purpose\"".into() }
}

/// What was never claimed is at 0; what is raised is there for the next owner, as another process sees it.
pub async fn a_position_is_claimed_and_raised(fixture: Fixture) {
    let places = [place("kafka:b", 1), place("kafka:a", 10), place("kafka:b", 0)];
    let claimed = claim(&fixture, &places).await;
    assert!(claimed.iter().all(|p| p.handled_below == 0 && p.fingerprint.is_empty() && p.epoch > 0), "{claimed:?}");
    let raised = [at(&claimed[0], 5), at(&claimed[2], i64::MAX)];
    assert_eq!(raise(&fixture, &raised).await, [true, true]);
    assert_eq!(listed(&fixture).await, [claimed[1].clone(), raised[1].clone(), raised[0].clone()], "in their order");
    let next = claim(&fixture.other().await, &places).await;
    assert_eq!(next.iter().map(|p| p.handled_below).collect::<Vec<_>>(), [5, 0, i64::MAX]);
    assert_eq!((next[0].fingerprint.as_str(), next[1].fingerprint.as_str()), ("before 5", ""));
    assert_eq!(claim(&fixture, &[]).await, []);
    assert_eq!(raise(&fixture, &[]).await, Vec::<bool>::new());
}

/// A base that is written late, after a higher one, changes nothing.
pub async fn a_base_never_falls(fixture: Fixture) {
    let claimed = claim(&fixture, &[place("log", 0)]).await.remove(0);
    for base in [7, 3, 7, 9, 0] {
        assert_eq!(raise(&fixture, &[at(&claimed, base)]).await, [true]);
    }
    assert_eq!(listed(&fixture).await, [at(&claimed, 9)]);
}

/// Whoever claims is the only one that raises; what the owner before writes late is refused, and only that.
pub async fn a_claim_fences_the_owner_before(fixture: Fixture) {
    let places = [place("log", 0), place("log", 1)];
    let first = claim(&fixture, &places).await;
    assert_eq!(raise(&fixture, &[at(&first[0], 5), at(&first[1], 6)]).await, [true, true]);
    let other = fixture.other().await;
    let second = claim(&other, &places[..1]).await.remove(0);
    assert!(second.epoch > first[0].epoch && second.handled_below == 5, "{second:?}");
    assert_eq!(raise(&fixture, &[at(&first[0], 100), at(&first[1], 7)]).await, [false, true]);
    assert_eq!(raise(&other, &[at(&second, 8)]).await, [true]);
    assert_eq!(listed(&fixture).await, [at(&second, 8), at(&first[1], 7)]);
    let never = Position { partition: place("log", 2), handled_below: 1, epoch: 1, fingerprint: String::new() };
    assert_eq!(raise(&fixture, &[never]).await, [false], "nobody has claimed it");
    assert_eq!(fixture.count("log_position").await, 2);
}

/// Endpoints, logs and partitions are told apart.
pub async fn endpoints_and_logs_have_positions_of_their_own(fixture: Fixture) {
    let billing = fixture.endpoint("billing");
    let places = [place("log", 0), place("Log", 0), place("log", 1)];
    let mut base = 0;
    for fixture in [&fixture, &billing] {
        for position in claim(fixture, &places).await {
            base += 1;
            assert_eq!(raise(fixture, &[at(&position, base)]).await, [true]);
        }
    }
    let bases = |all: Vec<Position>| all.iter().map(|p| p.handled_below).collect::<Vec<_>>();
    assert_eq!(bases(listed(&fixture).await), [2, 1, 3]);
    assert_eq!(bases(listed(&billing).await), [5, 4, 6]);
    assert_eq!(fixture.store.admin().reset_positions("billing", &reset("log", None, 0)).await.expect("reset"), 2);
    assert_eq!(bases(listed(&fixture).await), [2, 1, 3]);
    assert_eq!(bases(listed(&billing).await), [5, 0, 0]);
}

/// A reset lowers the base and forgets the mark, its owner cannot undo it, and who did it stands in the audit. It never
/// raises a base.
pub async fn a_reset_allows_a_replay_and_says_who(fixture: Fixture) {
    let places = [place("log", 0), place("log", 1), place("other", 0)];
    let claimed = claim(&fixture, &places).await;
    let raised: Vec<Position> = claimed.iter().zip([50, 60, 70]).map(|(p, base)| at(p, base)).collect();
    assert_eq!(raise(&fixture, &raised).await, [true, true, true]);
    let admin = fixture.store.admin();
    let (start, ask) = (fixture.store.now().await.expect("now"), reset("log", Some(1), 20));
    assert_eq!(admin.reset_positions("shop", &ask).await.expect("reset"), 1);
    assert_eq!(admin.reset_positions("shop", &reset("log", Some(9), 0)).await.expect("reset"), 0);
    assert_eq!(admin.reset_positions("shop", &reset("nowhere", None, 0)).await.expect("reset"), 0);
    assert_eq!(admin.reset_positions("shop", &reset("log", None, 55)).await.expect("reset"), 2);
    let now = listed(&fixture).await;
    assert_eq!(now.iter().map(|p| p.handled_below).collect::<Vec<_>>(), [50, 20, 70]);
    assert_eq!(
        (now[0].fingerprint.as_str(), now[1].fingerprint.as_str(), now[2].fingerprint.as_str()),
        ("", "", "before 70")
    );
    // the owner's next write does not undo it
    assert_eq!(raise(&fixture, &raised).await, [false, false, true]);
    assert_eq!(listed(&fixture).await, now);
    assert_eq!(claim(&fixture, &places[1..2]).await[0].handled_below, 20);
    let audit = admin.audit("shop", 0, 10).await.expect("audit");
    let told: Vec<_> = audit.iter().map(|e| (e.subject.as_str(), e.before.as_str(), e.after.as_str())).collect();
    assert_eq!(told, [("log/1", "60", "20"), ("log/0", "50", "50"), ("log/1", "20", "20")]);
    assert!(audit.iter().all(|e| e.by == ask.by && e.why == ask.why && e.action == POSITION_RESET && e.at >= start));
    assert_eq!(admin.audit("shop", audit[0].id, 1).await.expect("audit"), audit[1..2]);
    assert_eq!(admin.audit("billing", 0, 10).await.expect("audit"), []);
    assert_eq!((fixture.count("log_position").await, fixture.count("operator_audit").await), (3, 3));
}

/// Retention forgets messages, and never how far one has come or what operators did.
pub async fn positions_outlive_retention(fixture: Fixture) {
    let claimed = claim(&fixture, &[place("log", 0)]).await.remove(0);
    assert_eq!(raise(&fixture, &[at(&claimed, 5)]).await, [true]);
    assert_eq!(fixture.store.admin().reset_positions("shop", &reset("log", None, 4)).await.expect("reset"), 1);
    fixture.store.prune(Duration::ZERO).await.expect("prune");
    assert_eq!(listed(&fixture).await[0].handled_below, 4);
    assert_eq!(fixture.count("operator_audit").await, 1);
}

/// Of many that claim at once and raise all the time, the last to claim is the one that raises in the end.
pub async fn racing_claims_leave_one_owner(fixture: Fixture) {
    let places = [place("log", 0), place("log", 1), place("log", 2)];
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(fixture.other().await);
    }
    let all = &places;
    let race = others.iter().map(|fixture| async move {
        let mut claimed = claim(fixture, all).await;
        for base in 1..20 {
            claimed.iter_mut().for_each(|position| position.handled_below = base);
            raise(fixture, &claimed).await;
        }
        (claim(fixture, all).await, fixture)
    });
    let claims = futures::future::join_all(race).await;
    for n in 0..places.len() {
        let mut owners = 0;
        let last = claims.iter().map(|(claimed, _)| claimed[n].epoch).max().expect("some");
        for (claimed, fixture) in &claims {
            let raised = raise(fixture, &[at(&claimed[n], 100)]).await[0];
            assert_eq!(raised, claimed[n].epoch == last, "{claimed:?}");
            owners += usize::from(raised);
        }
        assert_eq!(owners, 1);
    }
}
