//! How a SQLite store is opened.

use sagabus_core::{Error, ErrorKind, Result, Runtime};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// How a SQLite store is opened. `SqliteOptions::default()` is right for nearly everyone.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SqliteOptions {
    /// Gives up durability: commits are not synced (`synchronous=OFF`), so that a power failure may lose them. For tests.
    pub volatile: bool,
    /// How long a handler may hold its own transaction (default 2 s).
    pub transaction_limit: Duration,
    /// How long a write waits for other processes before it fails as transient (default 10 s).
    pub busy_limit: Duration,
    /// For how long handled messages are remembered (default 7 days).
    pub horizon: Duration,
    /// Does not share the writer with other stores on the same file in this process, as if it were another process. For
    /// tests.
    pub isolated: bool,
    /// Time, ids, tasks.
    pub runtime: Runtime,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            volatile: false,
            transaction_limit: Duration::from_secs(2),
            busy_limit: Duration::from_secs(10),
            horizon: Duration::from_secs(7 * 86_400),
            isolated: false,
            runtime: Runtime::system(),
        }
    }
}

impl SqliteOptions {
    /// The defaults, with this runtime.
    pub fn new(runtime: Runtime) -> Self {
        Self { runtime, ..Self::default() }
    }

    /// Gives up durability. See [`volatile`](Self::volatile).
    #[must_use]
    pub fn volatile(mut self) -> Self {
        self.volatile = true;
        self
    }

    /// As if in a process of its own. See [`isolated`](Self::isolated).
    #[must_use]
    pub fn isolated(mut self) -> Self {
        self.isolated = true;
        self
    }
}

/// The file that a URL names, and whether it may be created: `sqlite://path`, `sqlite:path`, each with
/// `?mode=rw` (must exist) or `?mode=rwc` (the default).
pub(crate) fn parse(url: &str) -> Result<(PathBuf, bool)> {
    let rest = url.strip_prefix("sqlite:").ok_or_else(|| {
        Error::invalid(format!("the store url {url:?} does not begin with sqlite:; write sqlite://path/to/file.db"))
    })?;
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if path.is_empty() {
        return Err(Error::invalid(format!("the store url {url:?} names no file; write sqlite://path/to/file.db")));
    }
    if path == ":memory:" {
        return Err(Error::invalid("sqlite in memory cannot be shared between connections; use memory:// instead"));
    }
    let mut create = true;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair {
            "mode=rwc" => create = true,
            "mode=rw" => create = false,
            _ => {
                return Err(Error::invalid(format!(
                    "the store url {url:?} has the parameter {pair:?}; known are mode=rw and mode=rwc"
                )));
            }
        }
    }
    Ok((PathBuf::from(path), create))
}

/// The one name of a file that may not exist yet: its directory's canonical path, and its own name.
pub(crate) fn canonical(path: &Path) -> Result<PathBuf> {
    let io_error = |e: std::io::Error| {
        Error::with_source(ErrorKind::Invalid, format!("find the directory of the sqlite file {}", path.display()), e)
    };
    if let Ok(found) = path.canonicalize() {
        return Ok(found);
    }
    let name = path
        .file_name()
        .ok_or_else(|| Error::invalid(format!("the sqlite file {} has no file name", path.display())))?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    Ok(parent.canonicalize().map_err(io_error)?.join(name))
}

/// Refuses network filesystems: SQLite's log needs shared memory and locks that work, which these do not give.
#[cfg(target_os = "linux")]
pub(crate) fn check_filesystem(directory: &Path) -> Result<()> {
    const NETWORK: &[(u32, &str)] = &[
        (0x6969, "nfs"),
        (0x517b, "smb"),
        (0xff53_4d42, "cifs"),
        (0xfe53_4d42, "smb2"),
        (0x00c3_6400, "ceph"),
        (0x0bd0_0bd0, "lustre"),
        (0x5346_414f, "afs"),
        (0x7461_636f, "ocfs2"),
    ];
    // what cannot be asked is not refused: the check is a courtesy
    let Ok(found) = rustix::fs::statfs(directory) else { return Ok(()) };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "magic numbers have 32 bits")]
    let magic = found.f_type as u32;
    match NETWORK.iter().find(|(number, _)| *number == magic) {
        Some((_, name)) => Err(Error::unsupported(format!(
            "the directory {} lies on a network filesystem ({name}), on which sqlite cannot keep its promises; use a \
             local directory",
            directory.display()
        ))),
        None => Ok(()),
    }
}

/// Nothing is known about other systems' numbers.
#[cfg(not(target_os = "linux"))]
pub(crate) fn check_filesystem(_directory: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_file_or_say_what_is_wrong() {
        for good in ["sqlite://a.db", "sqlite:a.db", "sqlite://a.db?mode=rwc"] {
            assert_eq!(parse(good).unwrap(), (PathBuf::from("a.db"), true), "{good}");
        }
        assert_eq!(parse("sqlite:///tmp/a.db?mode=rw").unwrap(), (PathBuf::from("/tmp/a.db"), false));
        for bad in ["postgres://x", "sqlite://", "sqlite::memory:", "sqlite://a.db?cache=shared"] {
            assert!(parse(bad).unwrap_err().is_invalid(), "{bad}");
        }
    }

    #[test]
    fn one_file_has_one_name() {
        let directory = std::env::temp_dir();
        let plain = canonical(&directory.join("none.db")).unwrap();
        let detour = canonical(&directory.join(".").join("none.db")).unwrap();
        assert_eq!(plain, detour);
        assert!(canonical(Path::new("/no/such/directory/x.db")).is_err());
    }
}
