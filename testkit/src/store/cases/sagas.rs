//! One saga per correlation value, one transition at a time, and no life after its end.

use crate::store::{Fixture, KIND, complete, create, fixture::outcome_codes, keep, update};
use sagabus_core::{SagaChange, SagaLookup};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

/// d: a created saga is loaded as it was written, with version 1.
pub async fn created_is_loaded(fixture: Fixture) {
    assert_eq!(fixture.saga("k").await, None);
    let instance = fixture.instance();
    let mut write = create("k", instance, &b"state"[..]);
    write.change = SagaChange::Create { instance, state: "state".into(), schema: 7, origin: Some("origin".into()) };
    fixture.apply(fixture.writes(write)).await;
    let row = fixture.saga("k").await.expect("the saga");
    assert_eq!((&*row.kind, row.key.as_str(), row.instance, row.version), (KIND, "k", instance, 1));
    assert_eq!((&row.state[..], row.schema, row.completed), (&b"state"[..], 7, false));
    assert_eq!(row.origin.as_deref(), Some(&b"origin"[..]));
    assert_eq!(fixture.other().await.saga("k").await, Some(row));
}

/// An update replaces the state, takes the version one further, and leaves the originator alone.
pub async fn update_moves_the_version(fixture: Fixture) {
    let instance = fixture.instance();
    let mut write = create("k", instance, &b"long first state"[..]);
    if let SagaChange::Create { origin, .. } = &mut write.change {
        *origin = Some("origin".into());
    }
    fixture.apply(fixture.writes(write)).await;
    for version in 1..=5 {
        let mut write = update("k", instance, version, vec![b'0' + u8::try_from(version).expect("small")]);
        if let SagaChange::Update { schema, .. } = &mut write.change {
            *schema = 2;
        }
        fixture.apply(fixture.writes(write)).await;
    }
    let row = fixture.saga("k").await.expect("the saga");
    assert_eq!((row.version, &row.state[..], row.schema, row.instance), (6, &b"5"[..], 2, instance));
    assert_eq!(row.origin.as_deref(), Some(&b"origin"[..]));
}

/// d: fifty starting messages of several processes for one key make one saga.
pub async fn create_race_has_one_winner(fixture: Fixture) {
    let other = fixture.other().await;
    for round in 0..5_u64 {
        let key = format!("k{round}");
        let tries = [&fixture, &other].into_iter().cycle().take(10).map(|fixture| {
            let unit = fixture.writes(create(&key, fixture.instance(), &b"x"[..]));
            fixture.commit_one(unit)
        });
        let mut seen: Vec<char> = outcome_codes(&futures::future::join_all(tries).await).chars().collect();
        seen.sort_unstable();
        assert_eq!(seen.iter().collect::<String>(), "ASSSSSSSSS");
        assert_eq!(fixture.count("saga").await, round + 1);
        assert_eq!(fixture.inbox().await, round + 1);
    }
}

/// d: a saga that lives is not created again.
pub async fn create_over_a_live_one_is_stale(fixture: Fixture) {
    let instance = fixture.born("k").await;
    for again in [instance, fixture.instance()] {
        assert_eq!(outcome_codes(&fixture.commit(vec![fixture.writes(create("k", again, &b"new"[..]))]).await), "S");
    }
    let row = fixture.saga("k").await.expect("the saga");
    assert_eq!((row.instance, row.version, &row.state[..]), (instance, 1, &b"born"[..]));
}

/// Of two writers that loaded the same version, one is stale; loading again, it succeeds.
pub async fn a_stale_writer_runs_again(fixture: Fixture) {
    let other = fixture.other().await;
    let instance = fixture.born("k").await;
    fixture.apply(fixture.writes(update("k", instance, 1, &b"mine"[..]))).await;
    let mut unit = other.writes(update("k", instance, 1, &b"theirs"[..]));
    assert_eq!(outcome_codes(&other.commit(vec![unit.clone()]).await), "S");
    assert_eq!(fixture.version("k").await, Some((2, b"mine".to_vec())));
    unit.saga = Some(update("k", instance, 2, &b"theirs"[..]));
    other.apply(unit).await;
    assert_eq!(fixture.version("k").await, Some((3, b"theirs".to_vec())));
}

/// Writers of several processes that load, add one and try again until they succeed lose no addition.
pub async fn no_update_is_lost(fixture: Fixture) {
    const EACH: usize = 15;
    let instance = fixture.instance();
    fixture.apply(fixture.writes(create("k", instance, &b"0"[..]))).await;
    let beds = [fixture.other().await, fixture.other().await, fixture.other().await];
    let work = beds.iter().map(|fixture| async move {
        let mut conflicts = 0;
        for _ in 0..EACH {
            let mut unit = fixture.unit();
            loop {
                let (version, state) = fixture.version("k").await.expect("the saga");
                let count: usize = String::from_utf8(state).expect("text").parse().expect("a number");
                fixture.runtime.sleep(Duration::from_micros(50)).await;
                unit.saga = Some(update("k", instance, version, (count + 1).to_string()));
                match outcome_codes(&fixture.commit(vec![unit.clone()]).await).as_str() {
                    "A" => break,
                    "S" if conflicts < 5_000 => conflicts += 1,
                    other => panic!("neither applied nor stale: {other}"),
                }
            }
        }
        conflicts
    });
    let conflicts: usize = futures::future::join_all(work).await.into_iter().sum();
    assert!(conflicts > 0, "the writers never met");
    let count = 3 * EACH;
    assert_eq!(fixture.version("k").await, Some((1 + i64::try_from(count).expect("small"), count.to_string().into())));
}

/// A version that is not the row's, lower or higher, is stale.
pub async fn the_version_is_compared(fixture: Fixture) {
    let instance = fixture.born("k").await;
    fixture.apply(fixture.writes(update("k", instance, 1, &b"two"[..]))).await;
    for version in [0, 1, 3, -1, i64::MAX - 1] {
        let writes = [update("k", instance, version, &b"bad"[..]), complete("k", instance, version)];
        for write in writes {
            assert_eq!(outcome_codes(&fixture.commit(vec![fixture.writes(write)]).await), "S", "version {version}");
        }
    }
    assert_eq!(fixture.version("k").await, Some((2, b"two".to_vec())));
}

/// The right version of another life is stale.
pub async fn the_instance_is_compared(fixture: Fixture) {
    let instance = fixture.born("k").await;
    let wrong = fixture.instance();
    for write in [update("k", wrong, 1, &b"bad"[..]), complete("k", wrong, 1)] {
        assert_eq!(outcome_codes(&fixture.commit(vec![fixture.writes(write)]).await), "S");
    }
    assert_eq!(fixture.saga("k").await.map(|row| (row.instance, row.version)), Some((instance, 1)));
    fixture.apply(fixture.writes(update("k", instance, 1, &b"good"[..]))).await;
}

/// A saga that does not exist is not updated into existence.
pub async fn a_missing_saga_is_not_written(fixture: Fixture) {
    let instance = fixture.instance();
    for write in
        [update("k", instance, 1, &b"bad"[..]), update("k", instance, 0, &b"bad"[..]), complete("k", instance, 1)]
    {
        assert_eq!(outcome_codes(&fixture.commit(vec![fixture.writes(write)]).await), "S");
    }
    assert_eq!((fixture.saga("k").await, fixture.count("saga").await, fixture.inbox().await), (None, 0, 0));
}

/// d: a completed saga is gone, and its key is free.
pub async fn complete_frees_the_key(fixture: Fixture) {
    let instance = fixture.born("k").await;
    fixture.apply(fixture.writes(complete("k", instance, 1))).await;
    assert_eq!((fixture.saga("k").await, fixture.count("saga").await), (None, 0));
    let next = fixture.born("k").await;
    assert_eq!(fixture.saga("k").await.map(|row| (row.instance, row.version)), Some((next, 1)));
}

/// Completing needs the version too; and after it, nothing is written.
pub async fn complete_and_update_conflict(fixture: Fixture) {
    let instance = fixture.born("k").await;
    fixture.apply(fixture.writes(update("k", instance, 1, &b"two"[..]))).await;
    assert_eq!(outcome_codes(&fixture.commit(vec![fixture.writes(complete("k", instance, 1))]).await), "S");
    assert_eq!(fixture.version("k").await, Some((2, b"two".to_vec())));
    fixture.apply(fixture.writes(complete("k", instance, 2))).await;
    let late =
        [update("k", instance, 2, &b"three"[..]), update("k", instance, 3, &b"three"[..]), complete("k", instance, 2)];
    for write in late {
        assert_eq!(outcome_codes(&fixture.commit(vec![fixture.writes(write)]).await), "S");
    }
    assert_eq!(fixture.saga("k").await, None);
}

/// A stale writer of a life that has ended never touches the next life of the key, though the versions agree.
pub async fn the_old_life_never_touches_the_new_one(fixture: Fixture) {
    let old = fixture.born("k").await;
    fixture.apply(fixture.writes(complete("k", old, 1))).await;
    let new = fixture.born("k").await;
    for write in [update("k", old, 1, &b"zombie"[..]), complete("k", old, 1), keep("k", old, 1, DAY, &b"zombie"[..])] {
        assert_eq!(outcome_codes(&fixture.commit(vec![fixture.writes(write)]).await), "S");
    }
    let row = fixture.saga("k").await.expect("the new life");
    assert_eq!((row.instance, row.version, &row.state[..]), (new, 1, &b"born"[..]));
}

/// A completed saga that is kept is seen as completed, is not written any more, and gives way to a new life.
pub async fn a_kept_one_is_read_only(fixture: Fixture) {
    let old = fixture.born("k").await;
    fixture.apply(fixture.writes(keep("k", old, 1, DAY, &b"end"[..]))).await;
    let row = fixture.saga("k").await.expect("kept");
    assert_eq!((row.instance, row.completed, &row.state[..]), (old, true, &b"end"[..]));
    for version in 1..=3 {
        for write in [update("k", old, version, &b"zombie"[..]), complete("k", old, version)] {
            assert_eq!(outcome_codes(&fixture.commit(vec![fixture.writes(write)]).await), "S");
        }
    }
    let new = fixture.born("k").await;
    let row = fixture.saga("k").await.expect("the new life");
    assert_eq!((row.instance, row.completed, row.version), (new, false, 1));
    assert_eq!(fixture.count("saga").await, 1);
    assert_eq!(outcome_codes(&fixture.commit(vec![fixture.writes(update("k", old, 1, &b"zombie"[..]))]).await), "S");
}

/// d: a saga that its first message completes is never stored, but must not exist either.
pub async fn start_and_complete_at_once(fixture: Fixture) {
    let unit = fixture.writes(complete("k", fixture.instance(), 0));
    fixture.apply(unit.clone()).await;
    assert_eq!((fixture.saga("k").await, fixture.inbox().await), (None, 1));
    assert_eq!(outcome_codes(&fixture.commit(vec![unit]).await), "D");
    let living = fixture.born("k").await;
    assert_eq!(outcome_codes(&fixture.commit(vec![fixture.writes(complete("k", fixture.instance(), 0))]).await), "S");
    assert_eq!(fixture.saga("k").await.map(|row| row.instance), Some(living));
}

/// d: likewise, but kept.
pub async fn start_complete_and_keep_at_once(fixture: Fixture) {
    let instance = fixture.instance();
    fixture.apply(fixture.writes(keep("k", instance, 0, DAY, &b"end"[..]))).await;
    let row = fixture.saga("k").await.expect("kept");
    assert_eq!((row.instance, row.completed, &row.state[..]), (instance, true, &b"end"[..]));
    fixture.born("other").await;
    let unit = fixture.writes(keep("other", fixture.instance(), 0, DAY, &b"end"[..]));
    assert_eq!(outcome_codes(&fixture.commit(vec![unit]).await), "S");
}

/// States of every size and content come back as they were, also after a longer one.
pub async fn states_come_back_exactly(fixture: Fixture) {
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let states: Vec<Vec<u8>> = vec![
        Vec::new(),
        vec![0],
        (0..=255).collect(),
        "{\"ü\":\"'\\\" \u{0}\u{1f980}\"}".into(),
        deep.into(),
        vec![b'x'; 1 << 20],
        vec![b'y'; 3],
    ];
    let instance = fixture.instance();
    fixture.apply(fixture.writes(create("k", instance, &b"first"[..]))).await;
    for (version, state) in (1..).zip(&states) {
        fixture.apply(fixture.writes(update("k", instance, version, state.clone()))).await;
        assert_eq!(fixture.version("k").await, Some((version + 1, state.clone())));
    }
}

/// d: keys are compared byte by byte: no folding of case, no trimming, no patterns, no normal forms, no cutting.
pub async fn keys_are_exact(fixture: Fixture) {
    let mut keys: Vec<String> = [
        "a",
        "A",
        "a ",
        " a",
        "a'b",
        "a\"b",
        "a\\b",
        "a%",
        "a_",
        "%",
        "_",
        "a\nb",
        "a\0b",
        "ä",
        "a\u{308}",
        "\u{e4}\u{0}",
        "ß",
        "ss",
        "\u{1f980}",
        "\u{202e}a",
        "1",
        "01",
        "1.0",
        "null",
        "NULL",
        "'; drop table saga; --",
        "$1",
        "?1",
        ":a",
        "",
    ]
    .map(Into::into)
    .into();
    keys.push("x".repeat(255));
    keys.push(format!("{}y", "x".repeat(254)));
    keys.push("ü".repeat(127));
    let mut lives = Vec::new();
    for key in &keys {
        let instance = fixture.instance();
        fixture.apply(fixture.writes(create(key, instance, key.clone()))).await;
        lives.push(instance);
    }
    assert_eq!(fixture.count("saga").await, keys.len() as u64);
    for (key, instance) in keys.iter().zip(lives) {
        let row = fixture.saga(key).await.unwrap_or_else(|| panic!("{key:?} is gone"));
        assert_eq!((&row.key, row.instance, &row.state[..]), (key, instance, key.as_bytes()), "{key:?}");
        fixture.apply(fixture.writes(update(key, instance, 1, &b"2"[..]))).await;
    }
}

/// d: the same key of another kind, or of another endpoint, is another saga.
pub async fn kinds_do_not_mix(fixture: Fixture) {
    let kinds = ["shop/order", "shop/Order", "shop/orders", "billing/order", "shop/order/x"];
    for kind in kinds {
        let mut write = create("k", fixture.instance(), kind);
        write.kind = kind.into();
        fixture.apply(fixture.writes(write)).await;
    }
    for kind in kinds {
        let row = fixture.find(SagaLookup::Key { kind: kind.into(), key: "k".into() }).await.expect(kind);
        assert_eq!((&*row.kind, &row.state[..]), (kind, kind.as_bytes()));
    }
    assert_eq!(fixture.count("saga").await, 5);
}

/// d: many lookups, found and not, are answered in their order.
pub async fn lookups_answer_in_order(fixture: Fixture) {
    let mut lives = Vec::new();
    for n in 0..20 {
        lives.push(fixture.born(&format!("k{n}")).await);
    }
    let lookups = (0..40).map(|n| match n % 2 {
        0 => SagaLookup::Key { kind: KIND.into(), key: format!("k{}", 39 - n) },
        _ => SagaLookup::Instance(crate::store::address(&format!("k{}", n / 2), lives[n / 2])),
    });
    let sagas = lookups.collect();
    let reply = fixture.load(sagabus_core::LoadRequest { sagas, ..Default::default() }).await;
    assert_eq!(reply.sagas.len(), 40);
    for (n, row) in reply.sagas.into_iter().enumerate() {
        let expected = match n % 2 {
            0 => Some(39 - n).filter(|n| *n < 20),
            _ => Some(n / 2),
        };
        assert_eq!(row.map(|row| row.key), expected.map(|n| format!("k{n}")), "lookup {n}");
    }
}

/// A lookup by instance finds that life only.
pub async fn a_life_is_found_by_its_instance(fixture: Fixture) {
    let old = fixture.born("k").await;
    let life = |instance| SagaLookup::Instance(crate::store::address("k", instance));
    assert_eq!(fixture.find(life(old)).await.map(|row| row.instance), Some(old));
    fixture.apply(fixture.writes(complete("k", old, 1))).await;
    let new = fixture.born("k").await;
    assert_eq!(fixture.find(life(old)).await, None);
    assert_eq!(fixture.find(life(new)).await.map(|row| row.instance), Some(new));
}

/// d: further correlation values find the saga from the unit that adds them until it completes.
pub async fn aliases_lead_to_the_saga(fixture: Fixture) {
    let alias = |kind: &str, name: &str, value: &str| SagaLookup::Alias {
        kind: kind.into(),
        alias: name.into(),
        value: value.into(),
    };
    let instance = fixture.instance();
    let mut write = create("k", instance, &b"x"[..]);
    write.aliases = vec![("invoice".into(), "i1".into()), ("parcel".into(), "i2".into())];
    fixture.apply(fixture.writes(write)).await;
    let mut write = update("k", instance, 1, &b"y"[..]);
    write.aliases = vec![("invoice".into(), "ü'3".into()), ("invoice".into(), "i1".into())];
    fixture.apply(fixture.writes(write)).await;
    let found = [("invoice", "i1"), ("invoice", "ü'3"), ("parcel", "i2")];
    for (name, value) in found {
        let row = fixture.find(alias(KIND, name, value)).await.expect(value);
        assert_eq!((row.key.as_str(), row.version), ("k", 2));
    }
    for (kind, name, value) in [(KIND, "parcel", "i1"), (KIND, "invoice", "I1"), ("shop/other", "invoice", "i1")] {
        assert_eq!(fixture.find(alias(kind, name, value)).await, None);
    }
    fixture.apply(fixture.writes(complete("k", instance, 2))).await;
    fixture.born("k").await;
    for (name, value) in found {
        assert_eq!(fixture.find(alias(KIND, name, value)).await, None, "an alias of an earlier life");
    }
    assert_eq!(fixture.count("saga_alias").await, 0);
}
