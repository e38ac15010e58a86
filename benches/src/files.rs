//! Fresh files for each run, beside those that the URLs name: on the same disk, and nothing that exists is touched.

use crate::args::Spec;
use anyhow::{Context as _, Result};
use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

/// A directory that goes away with it.
pub(crate) struct Fresh(PathBuf);

impl Fresh {
    fn beside(file: &Path) -> Result<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let parent = match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let directory = parent.join(format!("sagabus-bench-{}-{n}", std::process::id()));
        std::fs::create_dir(&directory).with_context(|| format!("create {}", directory.display()))?;
        Ok(Self(directory))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Fresh {
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

/// The same work on fresh files. They are removed when the guard is dropped.
pub(crate) fn fresh(spec: &Spec) -> Result<(Spec, Option<Fresh>)> {
    let mut spec = spec.clone();
    let Some(file) = file_of(&spec.store) else { return Ok((spec, None)) };
    let fresh = Fresh::beside(&file)?;
    let place = |url: &str| match file_of(url).as_deref().and_then(Path::file_name) {
        Some(name) => format!("sqlite://{}", fresh.path().join(name).display()),
        None => url.to_string(),
    };
    spec.transport = spec.transport.as_deref().map(place);
    spec.store = place(&spec.store);
    Ok((spec, Some(fresh)))
}
