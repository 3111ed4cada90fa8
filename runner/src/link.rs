//! What happens when a task calls the runner by the name `airx`: only `airx task` is here.
//!
//! Everything else goes to the next `airx` on the `PATH`, so that the whole command stays usable
//! within a task where it is installed.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::execute::workdir::LINK_NAME;

/// Exit code when there is no other `airx`, as of a shell that finds no command.
pub const EXIT_NOT_FOUND: u8 = 127;

/// Whether a program was called by the name of the link.
pub fn is_called(argv0: Option<&OsStr>) -> bool {
    argv0.map(Path::new).and_then(Path::file_name) == Some(OsStr::new(LINK_NAME))
}

/// Becomes the next `airx` on the `PATH`; comes back only with what is wrong.
pub fn become_next(arguments: &[OsString]) -> String {
    let own = std::env::current_exe().and_then(std::fs::canonicalize).ok();
    let path = std::env::var_os("PATH").unwrap_or_default();
    match next(&path, own.as_deref()) {
        Some(program) => {
            let error = Command::new(&program).args(arguments).exec();
            format!("failed to run {}: {error}", program.display())
        }
        None => {
            "only `airx task add` is here; for other verbs install the whole `airx` on the PATH"
                .to_owned()
        }
    }
}

/// The first executable `airx` on `path` that is not `own`.
fn next(path: &OsStr, own: Option<&Path>) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|folder| folder.join(LINK_NAME))
        .find(|program| {
            let is_program = program
                .metadata()
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
            is_program && std::fs::canonicalize(program).ok().as_deref() != own
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_counts() {
        assert!(is_called(Some(OsStr::new("/tmp/x/bin/airx"))));
        assert!(is_called(Some(OsStr::new("airx"))));
        assert!(!is_called(Some(OsStr::new("/usr/bin/air-runner"))));
        assert!(!is_called(None));
    }

    #[test]
    fn the_next_is_executable_and_not_ourselves() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, mode| {
            let program = folder.path().join(name).join(LINK_NAME);
            std::fs::create_dir(program.parent().unwrap()).unwrap();
            std::fs::write(&program, "").unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(mode)).unwrap();
            std::fs::canonicalize(program).unwrap()
        };
        let own = make("own", 0o755);
        make("plain", 0o644);
        let real = make("real", 0o755);
        let folders = ["own", "none", "plain", "real"].map(|name| folder.path().join(name));
        let path = std::env::join_paths(&folders).unwrap();
        let found = next(&path, Some(&own)).unwrap();
        assert_eq!(std::fs::canonicalize(found).unwrap(), real);
        let path = std::env::join_paths(&folders[..3]).unwrap();
        assert_eq!(next(&path, Some(&own)), None);
    }
}
