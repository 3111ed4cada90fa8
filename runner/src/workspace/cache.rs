//! What was fetched of a repository: one bare copy per host, which the tasks of that repository take turns to
//! bring up to date. What a task takes from it is its own from then on.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use air_protocol::claude::Workspace;
use air_protocol::quote::quote;

use super::folders::{make, short, write};
use super::git::{Git, without_passwords};
use super::lock::Lock;
use super::{Base, SpaceError};

/// Time to wait for another task that fetches from the same repository.
const TURN_WITHIN: Duration = Duration::from_secs(30 * 60);
/// Everything that a repository calls a branch or a tag.
const ALL: [&str; 2] = [
    "+refs/heads/*:refs/remotes/origin/*",
    "+refs/tags/*:refs/tags/*",
];
/// Where what was asked for by its own name is put.
const WANTED: &str = "refs/air/wanted";

/// A bare copy that is ours until this value is dropped.
#[derive(Debug)]
pub(super) struct Cache {
    pub(super) git: Git,
    repo: String,
    _lock: Lock,
}

impl Cache {
    /// Takes the copy of `repo`, and makes it where there is none.
    pub(super) async fn open(base: &Base, repo: &str, runner: &str) -> Result<Self, SpaceError> {
        check_repo(repo)?;
        let folder = place(base, repo);
        make(&folder)?;
        let lock = Lock::take(&folder.join("lock"), TURN_WITHIN).await?;
        lock.touch()?;
        let git = Git::new(&folder.join("git"), None, runner);
        let (ours, name) = (folder.join("repo"), repo.as_bytes());
        // Written last: one that is not whole, or of another repository with the same short name, is made anew.
        if fs::read(&ours).ok().as_deref() != Some(name) {
            let dir = git.dir();
            crate::execute::workdir::remove_all(dir).map_err(SpaceError::host("remove", dir))?;
            make(dir)?;
            let init = git.call("make a repository");
            init.args(["init", "-q", "--bare", "--template="])
                .bytes()
                .await?;
            write(&ours, name)?;
        }
        let repo = repo.to_owned();
        let _lock = lock;
        Ok(Self { git, repo, _lock })
    }

    /// The commit at which a task starts, fetched.
    pub(super) async fn start(
        &self,
        workspace: &Workspace,
        from: Option<(&str, Option<&str>)>,
    ) -> Result<String, SpaceError> {
        if let Some((branch, commit)) = from {
            return self.of_task(branch, commit).await;
        }
        let Some(reference) = workspace.reference.as_deref() else {
            self.fetch(&["+HEAD:refs/air/wanted"]).await?;
            return self.must(WANTED, "HEAD").await;
        };
        check_ref(reference)?;
        self.fetch(&[]).await?;
        self.named(reference).await
    }

    /// A commit that is known by its id alone.
    pub(super) async fn commit(&self, id: &str) -> Result<String, SpaceError> {
        check_ref(id)?;
        if let Some(found) = self.find(id).await? {
            return Ok(found);
        }
        self.fetch(&[]).await?;
        self.named(id).await
    }

    /// Where another task's work ended: its record's word goes before that of its branch.
    async fn of_task(&self, branch: &str, commit: Option<&str>) -> Result<String, SpaceError> {
        self.fetch(&[]).await?;
        if let Some(id) = commit {
            check_ref(id)?;
            if let Some(found) = self.find(id).await? {
                return Ok(found);
            }
        }
        let name = format!("refs/remotes/origin/{branch}");
        self.must(&name, branch).await
    }

    /// A branch, a tag, or anything else that the repository gives by that name.
    async fn named(&self, reference: &str) -> Result<String, SpaceError> {
        for place in ["refs/remotes/origin", "refs/tags"] {
            if let Some(found) = self.find(&format!("{place}/{reference}")).await? {
                return Ok(found);
            }
        }
        let is_id = reference.len() >= 7 && reference.bytes().all(|b| b.is_ascii_hexdigit());
        if is_id && let Some(found) = self.find(reference).await? {
            return Ok(found);
        }
        let refspec = format!("+{reference}:{WANTED}");
        match self.fetch(&[&refspec]).await {
            Ok(()) => self.must(WANTED, reference).await,
            Err(SpaceError::Git { .. }) => Err(self.has_no(reference)),
            Err(error) => Err(error),
        }
    }

    async fn must(&self, name: &str, said: &str) -> Result<String, SpaceError> {
        self.find(name).await?.ok_or_else(|| self.has_no(said))
    }

    fn has_no(&self, name: &str) -> SpaceError {
        let repo = without_passwords(&self.repo);
        let (repo, name) = (quote(&repo), quote(name));
        let text = format!("`{repo}` has no branch, tag or commit `{name}`");
        SpaceError::Refused(text)
    }

    async fn find(&self, name: &str) -> Result<Option<String>, SpaceError> {
        let name = format!("{name}^{{commit}}");
        let parse = self.git.call("look up a commit");
        let arguments = [
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            &name,
        ];
        parse.args(arguments).maybe().await
    }

    async fn fetch(&self, more: &[&str]) -> Result<(), SpaceError> {
        let fetch = self.git.call("fetch from the repository").args([
            "fetch",
            "-q",
            "--prune",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
        ]);
        let fetch = fetch.args(upload_pack(&self.repo));
        let fetch = fetch.args(["--", &self.repo]).args(ALL).args(more);
        fetch.bytes().await.map(drop)
    }
}

/// The other side of a fetch from a folder does not see our settings but by this: the repository may belong to
/// another user.
fn upload_pack(repo: &str) -> Option<&'static str> {
    is_here(repo).then_some("--upload-pack=git -c 'safe.directory=*' upload-pack")
}

/// The same for a push: hooks do not run, and nothing is tidied up at this moment.
pub(super) fn receive_pack(repo: &str) -> Option<&'static str> {
    is_here(repo).then_some(
        "--receive-pack=git -c 'safe.directory=*' -c core.hooksPath=/dev/null -c core.fsmonitor=false \
         -c receive.autoGC=false receive-pack",
    )
}

fn is_here(repo: &str) -> bool {
    folder_of(repo).is_some() || repo.starts_with("file://")
}

/// The folder of what was fetched from `repo`.
fn place(base: &Base, repo: &str) -> PathBuf {
    base.repos().join(short(repo))
}

/// Whether `repo` is a folder on this host.
fn folder_of(repo: &str) -> Option<&Path> {
    repo.starts_with('/').then(|| Path::new(repo))
}

fn check_repo(repo: &str) -> Result<(), SpaceError> {
    let is_option = repo.starts_with('-') || repo.contains(['\0', '\n']);
    let has_place = repo.contains("://") || (repo.contains(':') && !repo.starts_with(':'));
    let text = match folder_of(repo) {
        _ if is_option || repo.contains("::") => "is no address of a repository".to_owned(),
        Some(folder) if !folder.is_dir() => "is no folder on this host".to_owned(),
        None if !has_place => "is neither an absolute path nor an address; give one".to_owned(),
        Some(_) | None => return Ok(()),
    };
    let repo = without_passwords(repo);
    let text = format!("the repository `{}` {text}", quote(&repo));
    Err(SpaceError::Refused(text))
}

/// Names only: what git would compute from one, or take for two, is refused.
fn check_ref(name: &str) -> Result<(), SpaceError> {
    let computes = |c: char| c.is_whitespace() || c.is_control() || "^~:?*[\\+".contains(c);
    let is_name = !name.is_empty()
        && !name.starts_with(['-', '/'])
        && !name.contains(computes)
        && !name.contains("..")
        && !name.contains("@{");
    if is_name {
        return Ok(());
    }
    let text = format!("`{}` is no name of a branch, tag or commit", quote(name));
    Err(SpaceError::Refused(text))
}
