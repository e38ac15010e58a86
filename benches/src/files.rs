//! Fresh files for each run, beside those that the URLs name, or fresh schemas: on the same disk, and nothing that exists
//! is touched.

use crate::{
    args::Spec,
    kafka::{self, is_kafka},
    postgres::{self, Schema, is_postgres},
    rabbit::{Names, is_rabbit},
};
use anyhow::{Context as _, Result};
use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

/// A directory that goes away with it.
struct Directory(PathBuf);

fn number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Directory {
    fn beside(file: &Path) -> Result<Self> {
        let n = number();
        let parent = match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let directory = parent.join(format!("sagabus-bench-{}-{n}", std::process::id()));
        std::fs::create_dir(&directory).with_context(|| format!("create {}", directory.display()))?;
        Ok(Self(directory))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // what cannot be removed is only rubbish in a directory with a telling name
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The file that a URL names, if it names one.
pub(crate) fn file_of(url: &str) -> Option<PathBuf> {
    let rest = url.strip_prefix("sqlite:")?;
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    Some(PathBuf::from(rest.split('?').next().unwrap_or(rest)))
}

/// What a run stands on, and is removed after it.
#[derive(Default)]
pub(crate) struct Fresh {
    directory: Option<Directory>,
    /// Dropped last of all; nobody reads them.
    schemas: Vec<Schema>,
    names: Vec<Names>,
    topics: Vec<kafka::Topics>,
}

impl Fresh {
    /// Where the files are.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.directory.as_ref().map(|directory| &*directory.0)
    }

    fn place(&mut self, url: &str) -> Result<String> {
        if is_rabbit(url) {
            self.names.push(Names::fresh(url, number())?);
            return Ok(self.names.last().map(|names| names.url.clone()).unwrap_or_default());
        }
        if is_kafka(url) {
            self.topics.push(kafka::Topics::fresh(url, number())?);
            return Ok(self.topics.last().map(|topics| topics.url.clone()).unwrap_or_default());
        }
        if is_postgres(url) {
            let name = format!("sagabus_bench_{}_{}", std::process::id(), number());
            let url = postgres::address(url)?;
            self.schemas.push(Schema::create(&url, name.clone())?);
            return Ok(postgres::in_schema(&url, &name));
        }
        let Some(file) = file_of(url) else { return Ok(url.to_owned()) };
        let directory = match &self.directory {
            Some(directory) => directory,
            None => self.directory.insert(Directory::beside(&file)?),
        };
        let name = file.file_name().unwrap_or_default();
        Ok(format!("sqlite://{}", directory.0.join(name).display()))
    }
}

/// The same work on fresh files or schemas. They are removed when the guard is dropped.
pub(crate) fn fresh(spec: &Spec) -> Result<(Spec, Fresh)> {
    let (mut spec, mut fresh) = (spec.clone(), Fresh::default());
    let store = fresh.place(&spec.store)?;
    spec.transport = match &spec.transport {
        // joined, said aloud
        Some(url) if *url == spec.store => None,
        Some(url) => Some(fresh.place(url)?),
        None => None,
    };
    spec.store = store;
    Ok((spec, fresh))
}
