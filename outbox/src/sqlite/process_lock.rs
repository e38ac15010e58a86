//! Proof that a process is dead: the lock on its file is free.
//!
//! Each process that opens a database holds an advisory lock on a file of its own in `<database>-nodes/`. The operating
//! system frees it when the process ends, however it ends. A process that is only stopped (SIGSTOP) still holds it, and
//! its lease decides.

use sagabus_core::{Error, ErrorKind, Result, Runtime};
use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
};

/// This process's lock.
pub(crate) struct ProcessLock {
    directory: PathBuf,
    name: String,
    _file: File,
}

impl ProcessLock {
    /// Takes the lock, and sweeps away the files of dead processes.
    pub(crate) fn take(database: &Path, runtime: &Runtime) -> Result<Self> {
        let mut directory = database.as_os_str().to_os_string();
        directory.push("-nodes");
        let directory = PathBuf::from(directory);
        let io_error = |e: std::io::Error| {
            Error::with_source(ErrorKind::Backend, format!("lock a file in {}", directory.display()), e)
        };
        let name = runtime.uuid().simple().to_string();
        // locked under another name first: a lock file that exists is either held, or its owner is dead
        let early = directory.join(format!("{name}.new"));
        let create = || std::fs::create_dir_all(&directory).and_then(|()| File::create(&early));
        // the last one to leave removes the directory, perhaps just now
        let file = create().or_else(|_| create()).or_else(|_| create()).map_err(io_error)?;
        file.lock().map_err(io_error)?;
        std::fs::rename(&early, directory.join(format!("{name}.lock"))).map_err(io_error)?;
        let lock = Self { directory, name, _file: file };
        lock.sweep();
        Ok(lock)
    }

    /// What goes into the node rows.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether this process is certainly dead. False when it cannot be told.
    pub(crate) fn is_dead(&self, process: &str) -> bool {
        // names come from the database: only ours are looked at
        if process.len() != 32 || !process.bytes().all(|b| b.is_ascii_hexdigit()) || process == self.name {
            return false;
        }
        let path = self.directory.join(format!("{process}.lock"));
        match File::open(&path) {
            Ok(file) => is_free(&file),
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        }
    }

    /// Removes what the dead left behind.
    fn sweep(&self) {
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|e| e == "lock") && File::open(&path).is_ok_and(|file| is_free(&file)) {
                // another process may have been faster
                let _ = std::fs::remove_file(&path);
            }
        }
    }
}

/// Shared, so that two who look at once do not take each other for the owner.
fn is_free(file: &File) -> bool {
    match file.try_lock_shared() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
    }
}

impl Drop for ProcessLock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.directory.join(format!("{}.lock", self.name)));
        // not empty while others are there
        let _ = std::fs::remove_dir(&self.directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_hold_their_lock_and_the_dead_are_swept() {
        let runtime = Runtime::system();
        let directory = std::env::temp_dir().join(format!("sagabus-lock-{}", runtime.uuid().simple()));
        std::fs::create_dir_all(&directory).unwrap();
        let database = directory.join("a.db");
        let one = ProcessLock::take(&database, &runtime).unwrap();
        let two = ProcessLock::take(&database, &runtime).unwrap();
        assert!(!one.is_dead(two.name()) && !two.is_dead(one.name()));
        let (name, nodes) = (two.name().to_string(), directory.join("a.db-nodes"));
        // as a kill leaves it: the file is there, the lock is not
        drop(two);
        std::fs::write(nodes.join(format!("{name}.lock")), "").unwrap();
        assert!(one.is_dead(&name));
        assert!(!one.is_dead("../../etc/passwd"));
        one.sweep();
        assert_eq!(std::fs::read_dir(&nodes).unwrap().count(), 1);
        drop(one);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
