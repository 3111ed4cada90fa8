//! The end of an attempt: what is there becomes a commit, the commit goes back to the repository, and what it
//! changes is told.

use std::fs::{self, File};
use std::io::Read;

use air_protocol::limits::{WORKSPACE_FILES_MAX, WORKSPACE_PATCH_BYTES_MAX};
use serde::Serialize;
use serde_json::{Map, Value};

use super::cache::receive_pack;
use super::{Space, SpaceError};

/// What a task changed, as its output tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The branch in the repository.
    pub branch: String,
    /// The commit from which the task started.
    pub base: String,
    /// The commit on which it ended: the same if it changed nothing.
    pub commit: String,
    /// Files that differ.
    pub files_changed: u64,
    /// Lines that were added, over all files.
    pub insertions: u64,
    /// Lines that were taken away, over all files.
    pub deletions: u64,
    /// The files, each with its lines; the first ones of very many.
    pub files: Vec<Change>,
    /// The difference of both commits, as `git apply` takes it; its first lines, if it is very long.
    pub patch: String,
    /// Bytes of the difference that do not stand in `patch`.
    pub patch_omitted_bytes: u64,
}

/// What changed in one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The file.
    pub path: String,
    /// Lines added; none in a file that is not text.
    pub insertions: Option<u64>,
    /// Lines taken away; none in a file that is not text.
    pub deletions: Option<u64>,
}

impl Summary {
    /// The task's output: what the agent said, and what it changed.
    pub fn with_result(&self, result: Value) -> Value {
        let mut all = Map::from_iter([("result".to_owned(), result)]);
        if let Ok(Value::Object(summary)) = serde_json::to_value(self) {
            all.extend(summary);
        }
        Value::Object(all)
    }
}

/// A commit of everything that is in the working tree.
pub(super) struct Snapshot {
    /// The last commit of the agent's own.
    pub(super) head: String,
    /// It, or one after it with what was not committed.
    pub(super) commit: String,
}

impl Space {
    /// Ends an attempt that did its work: what the agent left uncommitted is committed, and the branch in the
    /// repository leads to it. `message` is for that commit.
    ///
    /// # Errors
    /// Conflicts are left, or the commits cannot be brought to the repository.
    pub async fn finish(&self, message: &str) -> Result<Summary, SpaceError> {
        self.settle_down()?;
        self.refuse_conflicts().await?;
        let commit = self.snapshot(message, false).await?.commit;
        self.publish(&commit).await?;
        self.summary(commit).await
    }

    /// Brings what there is of an attempt that failed to the repository, so that people can look at it; the working
    /// tree stays as it is. None if there is nothing.
    ///
    /// # Errors
    /// The commits cannot be brought to the repository.
    pub async fn publish_unfinished(&self, message: &str) -> Result<Option<String>, SpaceError> {
        self.settle_down()?;
        let commit = self.snapshot(message, false).await?.commit;
        if commit == self.mark.base {
            return Ok(None);
        }
        self.publish(&commit).await?;
        Ok(Some(commit))
    }

    /// Commits everything, on an index of its own: neither the agent's index nor its branch changes. `always` makes a
    /// commit even of nothing new.
    pub(super) async fn snapshot(
        &self,
        message: &str,
        always: bool,
    ) -> Result<Snapshot, SpaceError> {
        let git = &self.git;
        let (index, own) = (self.saved_to(), git.dir().join("index"));
        // A copy knows which files have not changed.
        if fs::copy(&own, &index).is_err() && index.exists() {
            fs::remove_file(&index).map_err(SpaceError::host("remove", &index))?;
        }
        let add = git.call("take up the files of the working tree");
        let add = add.args(["add", "--all", "--", "."]);
        add.env("GIT_INDEX_FILE", &index).bytes().await?;
        let write = git.call("write the files of the working tree");
        let write = write.args(["write-tree"]).env("GIT_INDEX_FILE", &index);
        let tree = write.text().await?;
        let head = match self.commit_at("HEAD").await? {
            Some(head) => head,
            // The agent has thrown its branch away.
            None => self.mark.base.clone(),
        };
        let merged = self.commit_at("MERGE_HEAD").await?;
        let parse = git.call("look up a commit");
        let old = parse.args(["rev-parse", "--verify", &format!("{head}^{{tree}}")]);
        if old.text().await? == tree && merged.is_none() && !always {
            let commit = head.clone();
            return Ok(Snapshot { head, commit });
        }
        let commit = git.call("commit what is not committed");
        let mut commit = commit.args(["commit-tree", &tree, "-p", &head]);
        if let Some(merged) = &merged {
            commit = commit.args(["-p", merged]);
        }
        let commit = commit.input(message).text().await?;
        Ok(Snapshot { head, commit })
    }

    async fn commit_at(&self, name: &str) -> Result<Option<String>, SpaceError> {
        let name = format!("{name}^{{commit}}");
        let parse = self.git.call("look up a commit");
        let arguments = ["rev-parse", "--verify", "--quiet", &name];
        parse.args(arguments).maybe().await
    }

    /// What has conflicts is not committed as if it were done.
    async fn refuse_conflicts(&self) -> Result<(), SpaceError> {
        let dir = self.git.dir();
        if let Some(state) = ["rebase-merge", "rebase-apply"]
            .iter()
            .find(|name| dir.join(name).exists())
        {
            return Err(SpaceError::Conflicts(format!("a rebase ({state})")));
        }
        let list = self.git.call("look for conflicts");
        let list = list.args(["ls-files", "--unmerged", "-z"]).bytes().await?;
        let list = String::from_utf8_lossy(&list).into_owned();
        let paths = list.split('\0').filter_map(|entry| entry.split_once('\t'));
        let open = paths.map(|(_, path)| path).find(|path| {
            let text = fs::read(self.places.tree.join(path)).unwrap_or_default();
            has_markers(&text)
        });
        match open {
            Some(path) => Err(SpaceError::Conflicts(path.to_owned())),
            None => Ok(()),
        }
    }

    async fn publish(&self, commit: &str) -> Result<(), SpaceError> {
        const RESULT: &str = "refs/air/result";
        let keep = self.git.call("name the commit");
        keep.args(["update-ref", RESULT, commit]).bytes().await?;
        let push = self.git.call("bring the commits to the repository");
        let refspec = format!("+{RESULT}:refs/heads/{}", self.mark.branch);
        let plain = ["push", "-q", "--no-verify", "--recurse-submodules=no"];
        push.args(plain)
            .args(receive_pack(&self.mark.repo))
            .args(["--", &self.mark.repo, &refspec])
            .bytes()
            .await
            .map(drop)
    }

    async fn summary(&self, commit: String) -> Result<Summary, SpaceError> {
        const HOW: [&str; 4] = ["diff", "--no-renames", "--no-ext-diff", "--no-textconv"];
        let base = self.mark.base.clone();
        let count = self.git.call("compare the commits").args(HOW);
        let count = count.args(["--numstat", "-z", &base, &commit, "--"]);
        let count = count.bytes().await?;
        let all = String::from_utf8_lossy(&count).into_owned();
        let (mut files, mut sums) = (Vec::new(), [0; 3]);
        for change in all.split('\0').filter_map(change) {
            let [changed, insertions, deletions] = &mut sums;
            *changed += 1;
            *insertions += change.insertions.unwrap_or(0);
            *deletions += change.deletions.unwrap_or(0);
            if files.len() < WORKSPACE_FILES_MAX {
                files.push(change);
            }
        }
        let path = self.places.meta.join("patch");
        let diff = self.git.call("compare the commits").args(HOW);
        let diff = diff.args(["--binary", "--no-color"]);
        let diff = diff.args([&format!("--output={}", path.display()), &base, &commit]);
        diff.args(["--"]).bytes().await?;
        let (patch, patch_omitted_bytes) =
            head_of(&path).map_err(SpaceError::host("read", &path))?;
        let [files_changed, insertions, deletions] = sums;
        Ok(Summary {
            branch: self.mark.branch.clone(),
            base,
            commit,
            files_changed,
            insertions,
            deletions,
            files,
            patch,
            patch_omitted_bytes,
        })
    }
}

/// A line of `--numstat`.
fn change(line: &str) -> Option<Change> {
    let mut parts = line.splitn(3, '\t');
    let (insertions, deletions, path) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Change {
        path: path.to_owned(),
        insertions: insertions.parse().ok(),
        deletions: deletions.parse().ok(),
    })
}

/// The first lines of a file, and how many bytes they leave out.
fn head_of(path: &std::path::Path) -> std::io::Result<(String, u64)> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut bytes = Vec::new();
    file.take(WORKSPACE_PATCH_BYTES_MAX)
        .read_to_end(&mut bytes)?;
    if length > WORKSPACE_PATCH_BYTES_MAX {
        let lines = bytes.iter().rposition(|byte| *byte == b'\n');
        bytes.truncate(lines.map_or(0, |last| last + 1));
    }
    let omitted = length - bytes.len() as u64;
    Ok((String::from_utf8_lossy(&bytes).into_owned(), omitted))
}

/// Whether a text has what git writes around a conflict.
fn has_markers(text: &[u8]) -> bool {
    let has = |marker: &[u8]| {
        text.split(|byte| *byte == b'\n')
            .any(|line| line.starts_with(marker))
    };
    has(b"<<<<<<< ") && has(b">>>>>>> ")
}
