//! The inputs that are kept: one file each, in a folder for each target.

use std::fs;
use std::path::{Path, PathBuf};

/// Inputs that a target may keep.
pub const FILES_MAX: usize = 200;
/// Bytes that all targets together may keep.
pub const BYTES_MAX: usize = 1_000_000;

/// The folder of a target.
pub fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target)
}

/// The inputs of a target, with the names of their files, in the order of these.
///
/// # Errors
/// The folder, or a file in it, cannot be read.
pub fn inputs(target: &str) -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut inputs = Vec::new();
    for file in fs::read_dir(folder(target))? {
        let path = file?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        inputs.push((name, fs::read(path)?));
    }
    inputs.sort();
    Ok(inputs)
}
