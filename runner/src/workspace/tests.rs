//! Working trees with the real git, in temporary folders.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use air_protocol::claude::Workspace;
use tempfile::TempDir;

use super::*;

mod begin;
mod finish;
mod saved;
mod sweep;

/// A repository with a first commit, and a base for working trees.
struct Stage {
    folder: TempDir,
    base: Base,
    workspace: Workspace,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repo = folder.path().join("repo");
        fs::create_dir(&repo).unwrap();
        git(&repo, &["init", "-q", "-b", "main"]);
        fs::write(repo.join("greeting"), "hello\n").unwrap();
        fs::write(repo.join(".gitignore"), "built\n").unwrap();
        git(&repo, &["add", "."]);
        git(&repo, &["commit", "-q", "-m", "first"]);
        let workspace = Workspace {
            repo: repo.to_str().unwrap().to_owned(),
            reference: None,
            from: None,
        };
        let base = Base::new(folder.path().join("base"));
        Self {
            folder,
            base,
            workspace,
        }
    }

    fn repo(&self) -> PathBuf {
        self.folder.path().join("repo")
    }

    fn order(&self) -> Order<'_> {
        Order {
            base: &self.base,
            system: "ours",
            job: "job",
            task: "task",
            attempt: 1,
            runner: "r-1",
            workspace: &self.workspace,
            from_commit: None,
        }
    }

    async fn fresh(&self) -> Space {
        prepare(&self.order(), Start::Fresh).await.unwrap()
    }

    async fn again(&self, attempt: u32, saved: Option<(u32, &Path)>) -> Space {
        let order = Order {
            attempt,
            ..self.order()
        };
        prepare(&order, Start::Resume { saved }).await.unwrap()
    }

    async fn refused(&self) -> String {
        let error = prepare(&self.order(), Start::Fresh).await.unwrap_err();
        assert!(error.is_for_good(), "{error}");
        error.to_string()
    }

    /// Whether nothing of any task is left below the base.
    fn is_clean(&self) -> bool {
        let names = |path: &Path| {
            let entries = fs::read_dir(path).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.filter(|name| name != ".repos").collect::<Vec<_>>()
        };
        let tasks = self.base.tasks();
        names(self.base.path()) == [".tasks"] && names(&tasks).is_empty()
    }
}

/// What git prints.
fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(folder).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap());
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "tester");
        command.env(format!("GIT_{who}_EMAIL"), "tester@localhost");
    }
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap()
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}
