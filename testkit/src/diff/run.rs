use super::{
    answer::{Lines, or_error},
    draw::Draw,
    op::Op,
    store_under_test::StoreUnderTest,
};
use sagabus_core::{Result, Store};
use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::Arc,
};

/// What is to be compared.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What the operations are drawn from.
    pub seed: u64,
    /// How many operations.
    pub ops: u64,
    /// After how many of them everything that the stores hold is compared, beside once at the end.
    pub dump_every: u64,
}

/// How much was compared.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Operations by name.
    pub ops: BTreeMap<&'static str, u64>,
    /// Units within them.
    pub units: u64,
    /// The largest batch.
    pub largest: usize,
    /// What became of units: applied, duplicate, stale.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Lines of answers.
    pub answers: u64,
    /// Comparisons of everything.
    pub dumps: u64,
    /// Lines in them.
    pub dumped: u64,
    /// Rows that units had as gates, queue rows among them.
    pub rows: usize,
}

/// The first answer in which a store differs.
#[derive(Clone, Debug)]
pub struct Difference {
    /// What the operations were drawn from.
    pub seed: u64,
    /// Which operation, from 1.
    pub number: u64,
    /// The operation, or what was compared after it.
    pub what: String,
    /// The stores' names: the first one, and the one that differs.
    pub stores: (String, String),
    /// What either answered and the other did not; or, if only the order differs, what is not in the same place.
    pub answers: (Vec<String>, Vec<String>),
    /// The operations since everything was last compared, this one included.
    pub recent: Vec<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, operation {}: {}", self.seed, self.number, self.what)?;
        for (name, lines) in [(&self.stores.0, &self.answers.0), (&self.stores.1, &self.answers.1)] {
            writeln!(f, "{name} alone answered {} lines:", lines.len())?;
            lines.iter().take(12).try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        writeln!(f, "since everything was last compared:")?;
        self.recent.iter().try_for_each(|op| writeln!(f, "  {op}"))
    }
}

/// Runs the operations on all stores, which must be fresh. The first one is what the others are compared with, and what
/// the operations are drawn from: it should be the memory store.
///
/// # Errors
/// If a store cannot even tell the time.
pub async fn compare(
    stores: Vec<(String, Arc<dyn Store>)>,
    settings: Settings,
) -> Result<(Counts, Option<Difference>)> {
    let mut compared = Vec::new();
    for (name, store) in stores {
        compared.push(StoreUnderTest::new(name, store).await?);
    }
    let mut draw = Draw::new(settings.seed, compared[0].start);
    let mut counts = Counts::default();
    let mut first = draw.first().into_iter();
    let mut recent = Vec::new();
    for number in 1..=settings.ops {
        let op = match first.next() {
            Some(op) => op,
            None => draw.next(&compared[0]).await,
        };
        let dumps = counts.dumps;
        count(&mut counts, &op);
        recent.push(op.clone());
        let answers = futures::future::join_all(compared.iter_mut().map(|tested| tested.execute(&op))).await;
        note(&mut counts, &answers[0]);
        let mut difference = differ(&compared, answers, || brief(&format!("{op:?}")));
        if difference.is_none() && (number % settings.dump_every == 0 || number == settings.ops) {
            let asked = draw.asked();
            let dumps = compared.iter_mut().map(async |tested| or_error(tested.dump(&asked).await));
            let dumps = futures::future::join_all(dumps).await;
            counts.dumps += 1;
            counts.dumped += dumps[0].len() as u64;
            difference = differ(&compared, dumps, || brief(&format!("everything that the stores hold, after {op:?}")));
        }
        if let Some(difference) = difference {
            let recent = recent.iter().map(|op| brief(&format!("{op:?}"))).collect();
            return Ok((counts, Some(Difference { seed: settings.seed, number, recent, ..difference })));
        }
        if counts.dumps > dumps {
            recent.clear();
        }
    }
    counts.rows = compared[0].gates.len();
    Ok((counts, None))
}

fn count(counts: &mut Counts, op: &Op) {
    *counts.ops.entry(op.word()).or_default() += 1;
    let units = match op {
        Op::Commit { units, .. } => units.len(),
        Op::Transaction { unit, .. } => usize::from(unit.is_some()),
        _ => 0,
    };
    counts.units += units as u64;
    counts.largest = counts.largest.max(units);
}

fn note(counts: &mut Counts, answer: &Lines) {
    counts.answers += answer.len() as u64;
    for line in answer.iter().filter(|line| line.starts_with("unit ")) {
        let outcome = ["applied", "duplicate", "stale"].into_iter().find(|word| line.contains(word));
        *counts.outcomes.entry(outcome.unwrap_or("failed")).or_default() += 1;
    }
}

fn differ(compared: &[StoreUnderTest], answers: Vec<Lines>, what: impl Fn() -> String) -> Option<Difference> {
    let (one, rest) = answers.split_first()?;
    let (place, other) = rest.iter().enumerate().find(|(_, other)| *other != one)?;
    let without = |from: &Lines, other: &Lines| -> Lines {
        let known: HashSet<&str> = other.iter().map(|line| unnumbered(line)).collect();
        from.iter().filter(|line| !known.contains(unnumbered(line))).cloned().collect()
    };
    let mut answers = (without(one, other), without(other, one));
    if answers.0.is_empty() && answers.1.is_empty() {
        // the same in another order
        let pairs = one.iter().zip(other).filter(|(one, other)| one != other);
        answers = pairs.map(|(one, other)| (one.clone(), other.clone())).unzip();
    }
    let stores = (compared[0].name.clone(), compared[place + 1].name.clone());
    Some(Difference { seed: 0, number: 0, what: what(), stores, answers, recent: Vec::new() })
}

/// A line without the number that it begins with: one row more or less changes the numbers of all that follow.
fn unnumbered(line: &str) -> &str {
    line.split_once(" of ").or_else(|| line.split_once(" shard ")).map_or(line, |(_, rest)| rest)
}

/// Without most of the bodies, whose bytes say nothing.
fn brief(text: &str) -> String {
    let mut pieces = text.split(" b\"");
    let mut brief = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let mut escaped = false;
        let end = piece.find(|c| {
            c == '"' && !escaped || {
                escaped = c == '\\' && !escaped;
                false
            }
        });
        let (body, rest) = piece.split_at(end.unwrap_or(0));
        brief.push_str(" b\"");
        brief.extend(body.chars().take(12));
        brief.push_str(rest);
    }
    brief
}
