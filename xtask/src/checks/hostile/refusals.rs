//! What is refused at the start, with a text that says why.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::run::command;
use crate::checks::fixture::db::Db;
use crate::checks::fixture::programs::Programs;
use crate::proc::{Proc, tail};

/// A start that must fail: (what, further arguments, what the error names).
const STARTS: &[(&str, &[&str], &str)] = &[
    ("name with a quote", &["--endpoint", "a'b"], "endpoint name"),
    ("name with SQL", &["--endpoint", "x; DROP TABLE queue"], "endpoint name"),
    ("name of 300 bytes", &["--endpoint", LONG], "128 are allowed"),
    ("empty name", &["--endpoint", ""], "empty"),
    ("name in Unicode", &["--endpoint", "ka\u{308}se"], "endpoint name"),
    ("unknown transport", &["--transport", "gopher://x"], "gopher"),
    ("a transport that is not compiled in", &["--transport", "amqp://guest:hunter2@localhost"], "rabbitmq"),
    ("store in no directory", &["--store", "sqlite:///no/such/directory/x.db"], "/no/such/directory"),
    ("SQLite in memory", &["--store", "sqlite::memory:"], "memory://"),
];

const LONG: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
    aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// One start: its name, and what is wrong with it, if anything.
pub type Refusal = (String, Option<String>);

/// All of them; the last ones break the database for good.
pub fn all(programs: &Programs, dir: &Path) -> Result<Vec<Refusal>> {
    let mut found = Vec::new();
    for (name, args, names) in STARTS {
        let mut start = command(programs, dir)?;
        // clap takes the last one of an argument given twice only where told; so the first ones go
        let program = start.get_program().to_owned();
        let given: Vec<_> = start.get_args().map(std::ffi::OsStr::to_owned).collect();
        start = std::process::Command::new(program);
        for pair in given.chunks(2) {
            if !args.iter().any(|arg| pair[0].as_os_str() == *arg) {
                start.args(pair);
            }
        }
        start.args(*args);
        found.push((format!("start: {name}"), refused(&mut start, dir, names)?));
    }
    let mut db = Db::open(&dir.join("shop.db"))?;
    db.run("update sagabus_schema set version = 99")?;
    found.push(("start: schema of a newer version".into(), refused(&mut command(programs, dir)?, dir, "99")?));
    drop(db);
    std::fs::write(dir.join("shop.db"), "this is no database, and long enough to look at".repeat(100))?;
    found.push(("start: the file is no database".into(), refused(&mut command(programs, dir)?, dir, "database")?));
    Ok(found)
}

fn refused(start: &mut std::process::Command, dir: &Path, names: &str) -> Result<Option<String>> {
    let errors = dir.join("refused.err");
    // appended to, so the one before must go
    let _ = std::fs::remove_file(&errors);
    let mut process = Proc::spawn("refused", start.env("RUST_BACKTRACE", "0"), dir)?;
    let status = process.wait_for(Duration::from_secs(30))?;
    let text = tail(&errors, 40);
    Ok(match status {
        None => Some("it started".into()),
        Some(status) if status.success() => Some("it ended as if all were well".into()),
        Some(status) if status.code().is_none() => Some(format!("{status}: {text}")),
        Some(_) if text.contains("panicked") => Some(format!("it panicked: {text}")),
        Some(_) if text.contains("hunter2") => Some(format!("it tells the password: {text}")),
        Some(_) if !text.contains(names) => Some(format!("the error does not name {names:?}: {text}")),
        Some(_) => None,
    })
}
