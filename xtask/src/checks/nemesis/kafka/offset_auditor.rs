//! What the auditor says (tests/src/bin/kafka-onlooker.rs): a client that is no part of the product.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::checks::fixture::environment::Environment;
use crate::proc::{Proc, tail};

/// The groups of the workload, and the topics that each one reads.
const GROUPS: [(&str, &[&str]); 3] =
    [("chaos", &["cmd.chaos", "evt.chaos.happened"]), ("ledger", &["cmd.ledger"]), ("line", &["cmd.line"])];
/// The broker may be away, after a kill.
const PATIENCE: Duration = Duration::from_secs(120);

/// A record of a topic.
#[derive(Debug, Clone, Deserialize)]
pub struct Record {
    /// Where.
    pub topic: String,
    /// Where.
    pub partition: i32,
    /// Where.
    pub offset: i64,
    /// What decides its partition.
    pub key: Option<String>,
    /// The message's id.
    pub id: Option<String>,
    /// The message's type.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Its number in the run.
    pub n: Option<i64>,
}

/// How far the groups were at a moment, by their names without the prefix.
#[derive(Debug, Clone, Deserialize)]
pub struct Sample {
    /// When it began to ask, in milliseconds since 1970.
    pub began: u64,
    /// The groups.
    pub groups: BTreeMap<String, Group>,
}

/// One of them.
#[derive(Debug, Clone, Deserialize)]
pub struct Group {
    /// How many are in it.
    pub members: usize,
    /// What the broker calls its state.
    pub state: String,
    /// Topic, partition, committed offset (-1: none) and end.
    pub offsets: Vec<(String, i32, i64, i64)>,
}

impl Group {
    /// Records that are not finished.
    pub fn lag(&self) -> i64 {
        self.offsets.iter().map(|(.., committed, end)| end - (*committed).max(0)).sum()
    }
}

/// See the module.
pub struct OffsetAuditor {
    process: Proc,
    prefix: String,
    read: u64,
    /// All that was said so far.
    pub records: Vec<Record>,
    last: Option<Sample>,
}

impl OffsetAuditor {
    /// Starts it.
    pub fn start(environment: &Environment<'_>, servers: &str, prefix: &str) -> Result<Self> {
        let mut command = environment.program("kafka-onlooker")?;
        command.args(["--servers", servers, "watch"]).args(words(prefix));
        let process = Proc::spawn("onlooker", &mut command, environment.dir())?;
        Ok(Self { process, prefix: prefix.to_owned(), read: 0, records: Vec::new(), last: None })
    }

    /// Puts all groups back to the start. They must be empty.
    pub fn rewind(&self, environment: &Environment<'_>, servers: &str) -> Result<()> {
        let mut command = environment.program("kafka-onlooker")?;
        command.args(["--servers", servers, "rewind"]).args(words(&self.prefix));
        Proc::spawn("rewind", &mut command, environment.dir())?.expect_success(PATIENCE).context("rewind the groups")
    }

    /// Allows all endpoints to handle everything again.
    pub fn allow(&self, environment: &Environment<'_>) -> Result<()> {
        let mut command = environment.program("kafka-onlooker")?;
        command.args(["--servers", "none", "allow", "--store", &environment.urls().store]);
        command.args(GROUPS.iter().flat_map(|(endpoint, _)| ["--endpoint", endpoint]));
        Proc::spawn("allow", &mut command, environment.dir())?.expect_success(PATIENCE).context("allow a replay")
    }

    /// Gives every topic more partitions.
    pub fn grow(&self, environment: &Environment<'_>, servers: &str, to: usize) -> Result<()> {
        let topics: Vec<String> =
            GROUPS.iter().flat_map(|(_, topics)| *topics).map(|topic| format!("{}{topic}", self.prefix)).collect();
        let mut command = environment.program("kafka-onlooker")?;
        command.args(["--servers", servers, "grow", "--topic", &topics.join(","), "--to", &to.to_string()]);
        Proc::spawn("grow", &mut command, environment.dir())?.expect_success(PATIENCE).context("add partitions")
    }

    /// How far the groups are, asked for from now on. Every record below is in `records`.
    pub fn look(&mut self) -> Result<Sample> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?.as_millis() as u64;
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.read()?;
            if let Some(sample) = self.last.as_ref().filter(|sample| sample.began > now) {
                return Ok(sample.clone());
            }
            if self.process.poll()?.is_some() || Instant::now() > deadline {
                bail!("the auditor sees nothing:\n{}", tail(self.process.stderr(), 20));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Takes in what was said since; a line that is not whole yet stays for the next time.
    fn read(&mut self) -> Result<()> {
        let mut file = File::open(self.process.stdout()).context("open what the auditor says")?;
        file.seek(SeekFrom::Start(self.read)).context("read what the auditor says")?;
        let mut lines = BufReader::new(file);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).context("read what the auditor says")? > 0 && line.ends_with(b"\n") {
            self.read += line.len() as u64;
            if line.starts_with(b"{\"began\"") {
                let mut sample: Sample = serde_json::from_slice(&line).context("read a sample of the auditor's")?;
                let bare = |name: String| name.strip_prefix(&self.prefix).map_or(name.clone(), str::to_owned);
                sample.groups = sample.groups.into_iter().map(|(name, group)| (bare(name), group)).collect();
                self.last = Some(sample);
            } else {
                self.records.push(serde_json::from_slice(&line).context("read a record of the auditor's")?);
            }
            line.clear();
        }
        Ok(())
    }

    /// Keys of the ordered endpoint that were seen in more than one partition, and all of its keys.
    pub fn keys_of_line(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let mut environments: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
        for record in self.records.iter().filter(|record| record.topic.ends_with("cmd.line")) {
            environments.entry(record.key.as_deref().unwrap_or_default()).or_default().insert(record.partition);
        }
        let moved = environments.iter().filter(|(_, partitions)| partitions.len() > 1);
        (moved.map(|(key, _)| (*key).to_owned()).collect(), environments.keys().map(|key| (*key).to_owned()).collect())
    }
}

fn words(prefix: &str) -> Vec<String> {
    let word = |(group, topics): &(&str, &[&str])| {
        let topics: Vec<String> = topics.iter().map(|topic| format!("{prefix}{topic}")).collect();
        ["--group".to_owned(), format!("{prefix}{group}={}", topics.join(","))]
    };
    GROUPS.iter().flat_map(word).collect()
}
