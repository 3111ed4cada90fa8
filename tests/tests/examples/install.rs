//! What the clients need, installed by the package manager of each language into `target/examples/<language>/`.
//!
//! The sources in `examples/` are never written to. Safe when two runs start at once: the second waits at a lock and
//! finds the work done. Each function returns the command that starts the client; the job's name is still to be added.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const NODE: &str = "Node.js 20 or newer, with npm";

/// The script itself: all that it needs is `nats`, which the tests have anyway.
pub(crate) fn shell() -> Command {
    let mut client = Command::new("bash");
    client.arg(source("shell-client").join("client.sh"));
    if let Some(nats) = std::env::var_os("AIR_NATS_CLI") {
        let beside = Path::new(&nats)
            .parent()
            .expect("a program lies in a folder");
        let search = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(beside.to_path_buf()).chain(std::env::split_paths(&search));
        client.env("PATH", std::env::join_paths(folders).unwrap());
    }
    client
}

/// A virtual environment with what `requirements.txt` names.
pub(crate) fn python() -> Command {
    let from = source("python-client");
    let folder = installed("python", &from.join("requirements.txt"), |folder| {
        run(
            Command::new("python3").args(["-m", "venv"]).arg(folder),
            "Python 3.9 or newer, with its module venv",
        );
        let mut pip = Command::new(folder.join("bin/python"));
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--requirement",
        ]);
        run(
            pip.arg(from.join("requirements.txt")),
            "Python's module pip",
        );
    });
    let mut client = Command::new(folder.join("bin/python"));
    client.arg(from.join("client.py"));
    client
}

/// A folder with the modules of `package-lock.json` and a copy of the source, which looks for its modules beside it.
pub(crate) fn typescript() -> Command {
    let from = source("typescript-client");
    let folder = installed("typescript", &from.join("package-lock.json"), |folder| {
        for file in ["package.json", "package-lock.json"] {
            copy(&from.join(file), &folder.join(file));
        }
        let mut npm = Command::new("npm");
        npm.args([
            "ci",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--prefix",
        ]);
        run(npm.arg(folder), NODE);
    });
    run(Command::new("node").arg("--version"), NODE);
    copy(&from.join("client.ts"), &folder.join("client.ts"));
    let mut client = Command::new("node");
    client
        .args(["--import", "tsx", "client.ts"])
        .current_dir(folder);
    client
}

/// A program compiled by go, which keeps what it compiled before.
pub(crate) fn go() -> Command {
    let program = folder_of("go").join("client");
    let _lock = lock("go");
    let mut go = Command::new("go");
    go.args(["build", "-buildvcs=false", "-mod=readonly", "-o"])
        .arg(&program)
        .arg(".");
    run(go.current_dir(source("go-client")), "Go 1.26 or newer");
    Command::new(program)
}

/// A program compiled by cargo into the target folder of this workspace, which has some of its dependencies already.
pub(crate) fn rust() -> Command {
    let target = target();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--quiet", "--locked", "--manifest-path"])
        .arg(source("rust-client").join("Cargo.toml"));
    // As the workspace compiles what it depends on, or nothing could be shared.
    cargo
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_PROFILE_DEV_DEBUG", "false");
    // What cargo set for this test would make build scripts that look at it run again and again.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    run(
        &mut cargo,
        "the Rust toolchain that `rust-toolchain.toml` names",
    );
    Command::new(target.join("debug/rust-client"))
}

/// The folder `target/examples/<language>`, filled anew by `install` unless that was done for this very list.
fn installed(language: &str, list: &Path, install: impl FnOnce(&Path)) -> PathBuf {
    let _lock = lock(language);
    let (folder, wanted) = (folder_of(language), fs::read(list).unwrap());
    let done = folder.join("installed");
    if fs::read(&done).ok().as_ref() != Some(&wanted) {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        install(&folder);
        fs::write(done, wanted).unwrap();
    }
    folder
}

/// Held until the file is dropped, or its process is gone.
fn lock(language: &str) -> File {
    fs::create_dir_all(target().join("examples")).unwrap();
    let lock = File::create(folder_of(language).with_extension("lock")).unwrap();
    lock.lock().unwrap();
    lock
}

fn folder_of(language: &str) -> PathBuf {
    target().join("examples").join(language)
}

fn source(example: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples")
        .join(example)
}

/// Cargo's target folder: this program lies in `target/debug/deps`.
fn target() -> PathBuf {
    std::env::current_exe()
        .unwrap()
        .ancestors()
        .nth(3)
        .unwrap()
        .to_path_buf()
}

/// Replaces the file in one step, so that a client that starts meanwhile reads the old or the new one.
fn copy(from: &Path, to: &Path) {
    let partial = to.with_extension(format!("{}.partial", std::process::id()));
    fs::copy(from, &partial).unwrap();
    fs::rename(partial, to).unwrap();
}

/// Runs an installer; one line says what a machine lacks, or what the installer said.
fn run(command: &mut Command, needs: &str) {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output =
        output.unwrap_or_else(|error| panic!("`{name}` does not start ({error}): install {needs}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?} failed: {said}\nIt needs {needs}."
    );
}
