//! What is done to PostgreSQL.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Nemesis;
use super::cluster_under_test::ClusterUnderTest;
use crate::checks::fixture::db::{APPLICATION, Db};

/// All of them.
pub const ALL: &[Nemesis] = &[
    Nemesis { name: "terminate", strike: terminate },
    Nemesis { name: "restart", strike: restart },
    Nemesis { name: "locks", strike: locks },
    Nemesis { name: "lock-timeouts", strike: lock_timeouts },
    Nemesis { name: "full-disk", strike: full_disk },
];

/// The tables that a message's way leads through.
const HOT: [&str; 8] = [
    "sagabus.saga",
    "sagabus.outbox",
    "sagabus.timer",
    "sagabus.inbox",
    "sagabus.queue",
    "sagabus.retry",
    "sagabus.node",
    "sagabus.shard",
];

/// Every connection but ours, every 200 ms. Counts connections.
fn terminate(cluster: &mut ClusterUnderTest<'_>) -> Result<u64> {
    cluster.work_goes_on()?;
    let mut struck = 0;
    for _ in 0..60 {
        struck += disconnect(cluster.store()?)?;
        thread::sleep(Duration::from_millis(200));
    }
    Ok(struck)
}

fn disconnect(store: &mut Db) -> Result<u64> {
    let ended = store.number(&format!(
        "select count(*) filter (where pg_terminate_backend(pid)) from pg_stat_activity
         where datname = current_database() and application_name <> '{APPLICATION}'"
    ))?;
    Ok(ended.unsigned_abs())
}

/// The whole server, at once, and back with recovery. Counts restarts.
fn restart(cluster: &mut ClusterUnderTest<'_>) -> Result<u64> {
    let rounds = 6;
    for _ in 0..rounds {
        cluster.work_goes_on()?;
        cluster.server()?.restart()?;
    }
    Ok(rounds)
}

/// A session that locks a table from everyone, for longer than a lease now and then. Counts locks.
fn locks(cluster: &mut ClusterUnderTest<'_>) -> Result<u64> {
    hold(cluster, &[300, 1500])
}

/// The same, and everyone else gives up waiting after 100 ms. Counts locks.
fn lock_timeouts(cluster: &mut ClusterUnderTest<'_>) -> Result<u64> {
    let store = cluster.store()?;
    let name: Vec<(String,)> = store.rows("select current_database()::text")?;
    let name = &name.first().context("the database's name")?.0;
    // ours set their own; those of others begin anew, with it
    store.run(&format!("alter database {name} set lock_timeout = '100ms'"))?;
    disconnect(store)?;
    let struck = hold(cluster, &[400, 800]);
    cluster.store()?.run(&format!("alter database {name} reset lock_timeout"))?;
    struck
}

fn hold(cluster: &mut ClusterUnderTest<'_>, times: &[u64]) -> Result<u64> {
    let mut struck = 0;
    for (at, table) in HOT.iter().enumerate() {
        for mode in ["access exclusive", "share row exclusive"] {
            cluster.work_goes_on()?;
            let store = cluster.store()?;
            store.run(&format!("begin; set local lock_timeout = '20s'; lock table {table} in {mode} mode"))?;
            thread::sleep(Duration::from_millis(times[at % times.len()]));
            store.run("rollback")?;
            struck += 1;
        }
    }
    Ok(struck)
}

/// The tables move to a small filesystem, which is filled up. Counts the statements that the server refused.
fn full_disk(cluster: &mut ClusterUnderTest<'_>) -> Result<u64> {
    cluster.work_goes_on()?;
    let disk = cluster.server()?.small_disk(96)?;
    let space = disk.space();
    let store = cluster.store()?;
    let own: Vec<(String,)> = store.rows("select 'disk_' || current_database()::text")?;
    let own = &own.first().context("the database's name")?.0;
    store.run(&format!("create tablespace {own} location '{}'", space.display()))?;
    let tables = relations(store)?;
    for relation in &tables {
        store.run(&format!("alter {relation} set tablespace {own}"))?;
    }
    let mut struck = 0;
    for _ in 0..4 {
        cluster.work_goes_on()?;
        disk.fill()?;
        let until = Instant::now() + Duration::from_secs(4);
        while Instant::now() < until {
            struck += u64::from(refused(cluster.store()?)?);
            thread::sleep(Duration::from_millis(100));
        }
        disk.free()?;
    }
    // back, so that the disk can go
    let store = cluster.store()?;
    for relation in &tables {
        store.run(&format!("alter {relation} set tablespace pg_default"))?;
    }
    store.run(&format!("drop tablespace {own}"))?;
    drop(disk);
    Ok(struck)
}

/// Tables and indexes, as `alter` calls them.
fn relations(store: &mut Db) -> Result<Vec<String>> {
    let rows: Vec<(String,)> = store.rows(
        "select case relkind when 'i' then 'index ' else 'table ' end || c.oid::regclass::text
         from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where n.nspname in ('sagabus', 'bus', 'public') and c.relkind in ('r', 'i')",
    )?;
    Ok(rows.into_iter().map(|(relation,)| relation).collect())
}

/// Whether the server says that there is no room.
fn refused(store: &mut Db) -> Result<bool> {
    let tried = store.run(
        "begin; insert into sagabus.dead_letter (endpoint, handler, shard, at, attempts, reason, detail, headers, body)
         select '', '', 0, 0, 0, '', '', '', decode(repeat(md5(i::text), 200), 'hex') from generate_series(1, 50) i; rollback",
    );
    match tried {
        Ok(()) => Ok(false),
        Err(error) => {
            store.run("rollback")?;
            let text = format!("{error:#}");
            anyhow::ensure!(text.contains("No space left"), "{text}");
            Ok(true)
        }
    }
}
