//! Finds the outside programs that development needs, and installs those that are missing.
//!
//! `cargo xtask tools` prints one line per tool; the other verbs call [`nats_server`], [`nats`] and their like.
//! The order is: the tool's environment variable, the `PATH` if that one is new enough, `target/tools`, and only then
//! an installation of the pinned version into `target/tools/<name>-<version>/`. Nothing outside of the target folder
//! is ever changed. To move to a newer version, change [`recipes`].

mod install;
mod kubernetes;
mod recipes;
mod version;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use crate::command;
use crate::error::{Error, Result};
use crate::workspace;
use recipes::Recipe;
use version::Version;

/// An outside program of the development environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tool {
    /// The server that every test and the demo run on
    NatsServer,
    /// The command line of NATS, for tests of what a person sees with it
    Nats,
    /// Docker Compose, for the tests of `compose.yaml`
    DockerCompose,
    /// Checks licences and sources of the dependencies
    CargoDeny,
    /// Changes the code one place at a time, to see that a test fails
    CargoMutants,
    /// The agent of the tests of agents, against a stand-in of its service
    Claude,
    /// A whole cluster in one program, for the tests of its backend; compiled in some ten minutes
    Kubernetes,
    /// Installs the chart of managers, for its test
    Helm,
}

impl Tool {
    fn recipe(self) -> &'static Recipe {
        match self {
            Self::NatsServer => &recipes::NATS_SERVER,
            Self::Nats => &recipes::NATS,
            Self::DockerCompose => &recipes::DOCKER_COMPOSE,
            Self::CargoDeny => &recipes::CARGO_DENY,
            Self::CargoMutants => &recipes::CARGO_MUTANTS,
            Self::Claude => &recipes::CLAUDE,
            Self::Kubernetes => &recipes::KUBERNETES,
            Self::Helm => &recipes::HELM,
        }
    }
}

/// The verb `tools`: one line per tool on stdout, with its name, version and path.
pub(crate) fn run(names: &[Tool]) -> Result<()> {
    let names = if names.is_empty() {
        Tool::value_variants()
    } else {
        names
    };
    for &tool in names {
        let path = find(tool)?;
        println!(
            "{:<14} {:<8} {}",
            tool.recipe().name,
            version_of(tool.recipe(), &path)?.to_string(),
            path.display()
        );
    }
    Ok(())
}

/// The path of a `nats-server` that is new enough.
pub(crate) fn nats_server() -> Result<PathBuf> {
    find(Tool::NatsServer)
}

/// The path of the command line of NATS.
pub(crate) fn nats() -> Result<PathBuf> {
    find(Tool::Nats)
}

/// The path of Docker Compose.
pub(crate) fn docker_compose() -> Result<PathBuf> {
    find(Tool::DockerCompose)
}

/// The path of `cargo-deny`.
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    find(Tool::CargoDeny)
}

/// The path of `cargo-mutants`.
pub(crate) fn cargo_mutants() -> Result<PathBuf> {
    find(Tool::CargoMutants)
}

/// The path of the Claude Code CLI.
pub(crate) fn claude() -> Result<PathBuf> {
    find(Tool::Claude)
}

/// The path of the program that is all of Kubernetes.
pub(crate) fn kubernetes() -> Result<PathBuf> {
    find(Tool::Kubernetes)
}

/// The path of Helm.
pub(crate) fn helm() -> Result<PathBuf> {
    find(Tool::Helm)
}

fn find(tool: Tool) -> Result<PathBuf> {
    let recipe = tool.recipe();
    if let Some(named) = std::env::var_os(recipe.variable).filter(|value| !value.is_empty()) {
        return named_by_hand(recipe, PathBuf::from(named));
    }
    if let Some(path) = on_path(recipe, &std::env::var_os("PATH").unwrap_or_default()) {
        return Ok(path);
    }
    install::into(&workspace::target()?.join("tools"), recipe)
}

/// A tool that somebody named is used or refused, never silently replaced by another one.
fn named_by_hand(recipe: &Recipe, path: PathBuf) -> Result<PathBuf> {
    let why = match version_of(recipe, &path) {
        Ok(found) if found >= recipe.minimum => return Ok(path),
        Ok(found) => format!("it is {found}, older than {}", recipe.minimum),
        Err(error) => error.to_string(),
    };
    Err(Error::NamedTool {
        variable: recipe.variable,
        path,
        why,
    })
}

/// The first one on the `PATH` that runs and is new enough.
fn on_path(recipe: &Recipe, search: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(search)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(recipe.name))
        .filter(|path| path.is_file())
        .find(|path| version_of(recipe, path).is_ok_and(|found| found >= recipe.minimum))
}

/// What the program says when it is asked for its version.
fn version_of(recipe: &Recipe, path: &Path) -> Result<Version> {
    let answer = command::capture(Command::new(path).args(recipe.version))?;
    Version::find(&answer).ok_or_else(|| Error::Answer {
        command: format!("{} {}", path.display(), recipe.version.join(" ")),
        what: answer.lines().next().unwrap_or("nothing").to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A folder with a fake `nats-server` of that version, removed when dropped.
    struct Fake(PathBuf);

    impl Fake {
        fn new(name: &str, version: &str) -> Self {
            let folder =
                std::env::temp_dir().join(format!("air-xtask-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            let program = folder.join("nats-server");
            std::fs::write(
                &program,
                format!("#!/bin/sh\necho nats-server: v{version}\n"),
            )
            .unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
            Self(folder)
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn an_old_server_on_the_path_is_passed_over() {
        let (old, new) = (Fake::new("old", "2.10.29"), Fake::new("new", "2.14.0"));
        let recipe = Tool::NatsServer.recipe();
        let search = std::env::join_paths([&old.0, &new.0]).unwrap();
        assert_eq!(on_path(recipe, &search), Some(new.0.join("nats-server")));
        assert_eq!(on_path(recipe, old.0.as_os_str()), None);
    }

    #[test]
    fn an_old_server_named_by_hand_is_refused_with_the_reason() {
        let old = Fake::new("named", "2.10.29");
        let error = named_by_hand(Tool::NatsServer.recipe(), old.0.join("nats-server"))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("AIR_NATS_SERVER names "), "{error}");
        assert!(
            error.ends_with("it is 2.10.29, older than 2.14.0"),
            "{error}"
        );
    }

    #[test]
    fn each_tool_is_named_as_its_program_is() {
        for tool in Tool::value_variants() {
            let typed = tool.to_possible_value().unwrap();
            assert_eq!(typed.get_name(), tool.recipe().name);
        }
    }
}
