//! Programs of the system: where they are, and the packages that bring them where they are not.

use std::path::PathBuf;
use std::process::Command;

use crate::command;
use crate::error::Result;

/// What whole-system tests start beside our own tools, and the package of each: machines in namespaces, and disks.
const OF_TESTS: [(&str, &str); 6] = [
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("iptables", "iptables"),
    ("mkfs.ext4", "e2fsprogs"),
];

/// Installs what whole-system tests start, where it is missing. Where that cannot be done the tests that need it say so.
pub(crate) fn ensure_for_tests() {
    for (program, package) in OF_TESTS {
        if let Err(error) = ensure(program, package) {
            eprintln!("tests that need {program} will fail: {error}");
        }
    }
}

/// Installs a package unless its program is there.
pub(crate) fn ensure(program: &str, package: &str) -> Result<()> {
    match find(program) {
        Some(_) => Ok(()),
        None => install(package),
    }
}

/// The file of a program on the `PATH`, to which the administrator's folders belong.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Installs a package of the system; needs its administrator.
pub(crate) fn install(package: &str) -> Result<()> {
    eprintln!("installing {package}: apt-get install {package}");
    let apt = |args: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.args(args).env("DEBIAN_FRONTEND", "noninteractive");
        command::capture(&mut apt).map(drop)
    };
    let needed = ["install", "--yes", "--no-install-recommends", package];
    // The lists of a fresh machine are empty or old; those of another one are left as they are.
    apt(&needed).or_else(|_| apt(&["update"]).and_then(|()| apt(&needed)))
}
