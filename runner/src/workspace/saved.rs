//! A working tree on its way to another host: one file with the agent's commits and with what is not committed.
//!
//! The file is a bundle of git without the history that the repository has. Its references say all there is to say:
//! `refs/air/saved/<commit of the start>/head` and `.../work`. Files that git ignores are not in it.

use std::fs;
use std::path::{Path, PathBuf};

use super::git::Git;
use super::{Space, SpaceError};

const ALL: &str = "refs/air/saved";

/// What an attempt saved.
#[derive(Debug)]
pub(super) struct Saved {
    path: PathBuf,
    /// The commit from which the task started.
    pub(super) base: String,
    /// The agent's last commit.
    pub(super) head: String,
    /// A commit after it with everything else.
    pub(super) work: String,
}

impl Space {
    /// Saves commits and uncommitted files in the file `to`, from which any host goes on. Nothing changes here.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn save(&self, to: &Path) -> Result<(), SpaceError> {
        self.settle_down()?;
        let message = format!("Uncommitted work of {}", self.mark.branch);
        let snapshot = self.snapshot(&message, true).await?;
        let place = format!("{ALL}/{}", self.mark.base);
        let names = ["head", "work"].map(|name| format!("{place}/{name}"));
        for (name, commit) in names.iter().zip([&snapshot.head, &snapshot.commit]) {
            let keep = self.git.call("name the commit");
            keep.args(["update-ref", name, commit]).bytes().await?;
        }
        let bundle = self.git.call("save the working tree");
        let bundle = bundle.args(["bundle", "create", "-q"]).args([to]);
        let bundle = bundle.args(&names).args(["--not", &self.mark.base]);
        bundle.bytes().await?;
        forget(&self.git, &self.mark.base).await
    }
}

async fn forget(git: &Git, base: &str) -> Result<(), SpaceError> {
    for name in ["head", "work"] {
        let name = format!("{ALL}/{base}/{name}");
        let delete = git.call("forget the saved commits");
        delete.args(["update-ref", "-d", &name]).bytes().await?;
    }
    Ok(())
}

/// Reads what a saved file holds.
pub(super) async fn look(git: &Git, path: &Path) -> Result<Saved, SpaceError> {
    let list = git.call("read the saved working tree");
    let list = list
        .args(["bundle", "list-heads"])
        .args([path])
        .text()
        .await?;
    let find = |end: &str| {
        list.lines().find_map(|line| {
            let (commit, name) = line.split_once(' ')?;
            let base = name
                .strip_prefix(ALL)?
                .strip_prefix('/')?
                .strip_suffix(end)?;
            Some((base.to_owned(), commit.to_owned()))
        })
    };
    let Some((base, work)) = find("/work") else {
        let doing = "read the saved working tree";
        let text = "it is not one that a workspace saved".to_owned();
        return Err(SpaceError::Git { doing, text });
    };
    // An agent that has committed nothing is at the start, which no bundle repeats.
    let head = find("/head").map_or_else(|| base.clone(), |(_, head)| head);
    let path = path.to_owned();
    Ok(Saved {
        path,
        base,
        head,
        work,
    })
}

impl Saved {
    /// Brings the commits into a repository that has the commit of the start.
    pub(super) async fn fetch(&self, git: &Git) -> Result<(), SpaceError> {
        let fetch = git.call("read the saved working tree");
        let plain = ["fetch", "-q", "--no-tags", "--no-write-fetch-head", "--"];
        let refspec = format!("+{ALL}/*:{ALL}/*");
        let fetch = fetch.args(plain).args([&self.path]).args([&refspec]);
        fetch.bytes().await.map(drop)
    }

    /// A merge that was under way is so again.
    pub(super) async fn settle(&self, git: &Git) -> Result<(), SpaceError> {
        let merged = format!("{}^2", self.work);
        let parse = git.call("look up a commit");
        let parse = parse.args(["rev-parse", "--verify", "--quiet", &merged]);
        if let Some(merged) = parse.maybe().await? {
            let path = git.dir().join("MERGE_HEAD");
            fs::write(&path, merged + "\n").map_err(SpaceError::host("write", &path))?;
        }
        forget(git, &self.base).await
    }
}
