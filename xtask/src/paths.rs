//! Where things are.

use std::env;
use std::path::{Path, PathBuf};

/// The workspace's root. Asked at run time, because a target directory may be shared by several clones.
pub fn root() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    manifest.parent().map_or_else(|| manifest.clone(), Path::to_path_buf)
}

/// Cargo's target directory for this workspace.
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        // Cargo takes a relative one from where it was called, and so were we.
        Some(dir) => std::path::absolute(&dir).unwrap_or_else(|_| dir.into()),
        None => root().join("target"),
    }
}

/// Where private servers keep their state, and the jars.
pub fn servers() -> PathBuf {
    target().join("servers")
}
