//! The tree on disk: what is in a folder, what it weighs, and how its files make batches.
//!
//! Symbolic links are not followed. Left out are the stores of version control, and folders that say by the standard
//! file `CACHEDIR.TAG` that they can be made again (cargo's `target` is one).

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::part::Unread;

/// Bytes that count as much as one more file.
const BYTES_OF_WEIGHT: u64 = 64 * 1024;
/// Bytes of names in one batch, so that the task stays within its limit.
const NAMES_BYTES_MAX: usize = 128 * 1024;
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// What is directly in a folder, in the order of names.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) files: Vec<Leaf>,
    pub(crate) folders: Vec<PathBuf>,
}

/// A file, and how much work it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) path: PathBuf,
    pub(crate) weight: u64,
}

/// What is in a folder; paths are relative to the current one, as `folder` is.
///
/// # Errors
/// It cannot be read.
pub(crate) fn list(folder: &Path) -> io::Result<Listing> {
    let here = Path::new(".");
    let from = if folder.as_os_str().is_empty() {
        here
    } else {
        folder
    };
    let mut listing = Listing::default();
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() && !is_left_out(&path) {
            listing.folders.push(path);
        } else if kind.is_file() {
            // One that is gone again weighs nothing; whoever reads it will say so.
            let bytes = entry.metadata().map_or(0, |found| found.len());
            let weight = 1 + bytes / BYTES_OF_WEIGHT;
            listing.files.push(Leaf { path, weight });
        }
    }
    listing.files.sort_by(|a, b| a.path.cmp(&b.path));
    listing.folders.sort();
    Ok(listing)
}

fn is_left_out(folder: &Path) -> bool {
    let is_store = |name: &OsStr| {
        [".git", ".hg", ".svn", ".jj"]
            .iter()
            .any(|store| name == *store)
    };
    let mut head = Vec::new();
    let tag = File::open(folder.join("CACHEDIR.TAG"));
    // A tag that cannot be read is none.
    let _ = tag.and_then(|tag| {
        tag.take(CACHE_SIGNATURE.len() as u64)
            .read_to_end(&mut head)
    });
    folder.file_name().is_some_and(is_store) || head == CACHE_SIGNATURE
}

/// What a whole folder holds: files, and their weight. Stops counting beyond `most`.
pub(crate) fn weigh(folder: &Path, most: u64) -> Weight {
    let mut sum = Weight::default();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        let listing = list(&folder).unwrap_or_default();
        sum.files += listing.files.len() as u64;
        sum.weight += listing.files.iter().map(|leaf| leaf.weight).sum::<u64>();
        if sum.weight > most {
            break;
        }
        open.extend(listing.folders);
    }
    sum
}

/// See [`weigh`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Weight {
    pub(crate) files: u64,
    pub(crate) weight: u64,
}

/// All files below a small folder, and what of it cannot be read.
pub(crate) fn gather(folder: &Path, files: &mut Vec<Leaf>, unread: &mut Vec<Unread>) {
    match list(folder) {
        Ok(listing) => {
            files.extend(listing.files);
            for folder in listing.folders {
                gather(&folder, files, unread);
            }
        }
        Err(error) => unread.push(Unread::new(folder, &error)),
    }
}

/// Batches of files in their order, of a weight up to `unit` where a single file does not have more.
///
/// Two batches that follow each other weigh more than `unit` together, so their number is bounded by the tree's
/// weight (if names are not extremely long).
pub(crate) fn batches(files: Vec<Leaf>, unit: u64) -> Vec<Vec<PathBuf>> {
    let mut all: Vec<Vec<PathBuf>> = Vec::new();
    let (mut weight, mut bytes) = (u64::MAX, 0);
    for leaf in files {
        weight = weight.saturating_add(leaf.weight);
        bytes += leaf.path.as_os_str().len();
        match all.last_mut() {
            Some(batch) if weight <= unit && bytes <= NAMES_BYTES_MAX => batch.push(leaf.path),
            _ => {
                weight = leaf.weight;
                bytes = leaf.path.as_os_str().len();
                all.push(vec![leaf.path]);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_full_and_in_order() {
        let leaf = |(n, weight): (usize, &u64)| Leaf {
            path: n.to_string().into(),
            weight: *weight,
        };
        let sizes = |weights: &[u64], unit| {
            let batches = batches(weights.iter().enumerate().map(leaf).collect(), unit);
            let order: Vec<_> = batches
                .iter()
                .flatten()
                .map(|path| path.to_string_lossy().into_owned())
                .collect();
            assert_eq!(
                order,
                (0..weights.len())
                    .map(|n| n.to_string())
                    .collect::<Vec<_>>()
            );
            batches.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(sizes(&[], 3), [0; 0]);
        assert_eq!(sizes(&[1, 1, 1, 1], 3), [3, 1]);
        assert_eq!(sizes(&[1, 9, 1, 1, 2], 3), [1, 1, 2, 1]);
        assert_eq!(sizes(&[1, 1], 1), [1, 1]);
    }
}
