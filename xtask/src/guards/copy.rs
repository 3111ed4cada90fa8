//! Keeps a copy of the sources up to date. What has not changed is not written again, so that cargo builds little.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::error::{Error, Result};

/// What is no source.
const LEFT_OUT: [&str; 2] = ["target", ".git"];

/// Makes `to` hold what `from` holds, and nothing else.
pub(super) fn mirror(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).map_err(Error::file(to))?;
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(from).map_err(Error::file(from))? {
        let entry = entry.map_err(Error::file(from))?;
        let name = entry.file_name();
        if LEFT_OUT.iter().any(|left_out| name == *left_out) {
            continue;
        }
        let kind = entry.file_type().map_err(Error::file(&entry.path()))?;
        if kind.is_dir() {
            mirror(&entry.path(), &to.join(&name))?;
        } else if kind.is_file() {
            copy(&entry.path(), &to.join(&name))?;
        } else {
            continue;
        }
        names.insert(name);
    }
    for entry in fs::read_dir(to).map_err(Error::file(to))? {
        let entry = entry.map_err(Error::file(to))?;
        if !names.contains(&entry.file_name()) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// The copy is newer than any build of what stood there before: its time is that of the writing.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).map_err(Error::file(from))?;
    if fs::read(to).is_ok_and(|before| before == bytes) {
        return Ok(());
    }
    if to.is_dir() {
        remove(to)?;
    }
    fs::write(to, bytes).map_err(Error::file(to))
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    removed.map_err(Error::file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_holds_what_is_there_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("air-xtask-copy-{}", std::process::id()));
        let (from, to) = (folder.join("from"), folder.join("to"));
        for path in ["a/b", "target", ".git"] {
            fs::create_dir_all(from.join(path)).unwrap();
        }
        for path in ["one", "a/b/two", "target/three"] {
            fs::write(from.join(path), path).unwrap();
        }
        fs::create_dir_all(to.join("gone/deep")).unwrap();
        fs::write(to.join("one"), "changed").unwrap();
        mirror(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("one")).unwrap(), "one");
        assert!(to.join("a/b/two").is_file());
        assert!(!to.join("gone").exists() && !to.join("target").exists());
        let written = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        let before = written(&to.join("one"));
        mirror(&from, &to).unwrap();
        assert_eq!(written(&to.join("one")), before, "what is equal stays");
        fs::remove_dir_all(folder).unwrap();
    }
}
