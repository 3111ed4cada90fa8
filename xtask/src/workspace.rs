//! Where things are: the workspace's root and cargo's target folder.

use std::path::{Path, PathBuf};

use crate::command;
use crate::error::{Error, Result};

/// The folder of the workspace's `Cargo.toml`.
pub(crate) fn root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    own.parent()
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Cargo's target folder, wherever its environment and configuration put it.
pub(crate) fn target() -> Result<PathBuf> {
    let mut metadata = command::cargo("metadata --no-deps --offline --format-version 1");
    let answer = command::capture(&mut metadata)?;
    let unclear = |what: String| Error::Answer {
        command: "cargo metadata".into(),
        what,
    };
    let answer: serde_json::Value =
        serde_json::from_str(&answer).map_err(|cause| unclear(cause.to_string()))?;
    let folder = answer["target_directory"]
        .as_str()
        .ok_or_else(|| unclear("no target_directory".into()))?;
    Ok(folder.into())
}
