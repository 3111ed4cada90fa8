//! Making a working tree, or going on in one.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::execute::workdir::remove_all;

use super::cache::Cache;
use super::folders::{Mark, Places, branch, check_name, make};
use super::git::{EMAIL, Git, NAME};
use super::lock::Lock;
use super::saved::{self, Saved};
use super::{Order, Origin, Space, SpaceError, Start};

/// Time that the runner of an earlier attempt gets to be gone. Nobody starts the next one before it was killed.
const PREDECESSOR_WITHIN: Duration = Duration::from_secs(10);

/// Gives the working tree that `order` asks for. It must be awaited to its end, or dropped: whatever was made until
/// then bears the task's mark.
///
/// # Errors
/// [`SpaceError`] when there is no such repository or start, or the host cannot make the tree.
pub async fn prepare(order: &Order<'_>, start: Start<'_>) -> Result<Space, SpaceError> {
    check_name(order.job)?;
    check_name(order.task)?;
    order.base.make()?;
    let places = Places::of(order.base, order.system, order.job, order.task);
    let lock = places.take(PREDECESSOR_WITHIN).await?;
    let git = Git::new(&places.git(), Some(&places.tree), order.runner);
    let wanted = Mark::of(order);
    if let Start::Resume { saved } = start
        && let Some(mark) = kept(&places, &wanted, saved.map(|(attempt, _)| attempt))
    {
        return go_on(order, places, mark, git, lock);
    }
    let saved = match start {
        Start::Resume {
            saved: Some((_, path)),
        } => Some(saved::look(&git, path).await?),
        Start::Resume { saved: None } | Start::Fresh => None,
    };
    let mark = make_tree(order, &places, wanted, &git, saved.as_ref()).await?;
    let origin = match saved {
        Some(_) => Origin::Restored,
        None => Origin::Fresh,
    };
    Ok(Space {
        places,
        mark,
        git,
        origin,
        lock,
    })
}

/// The mark of the tree that an earlier attempt left here, unless what was `saved` is younger.
fn kept(places: &Places, wanted: &Mark, saved: Option<u32>) -> Option<Mark> {
    let mark = Mark::read(&places.mark())?;
    let is_whole = places.tree.is_dir() && places.git().is_dir() && mark.serves(wanted);
    let is_youngest = saved.is_none_or(|saved| mark.attempt >= saved);
    (is_whole && is_youngest).then_some(mark)
}

fn go_on(
    order: &Order<'_>,
    places: Places,
    mark: Mark,
    git: Git,
    lock: Lock,
) -> Result<Space, SpaceError> {
    let mark = Mark {
        attempt: order.attempt,
        ..mark
    };
    mark.write(&places.mark())?;
    let origin = Origin::Kept;
    let space = Space {
        places,
        mark,
        git,
        origin,
        lock,
    };
    space.settle_down()?;
    Ok(space)
}

async fn make_tree(
    order: &Order<'_>,
    places: &Places,
    mark: Mark,
    git: &Git,
    saved: Option<&Saved>,
) -> Result<Mark, SpaceError> {
    // Without a base it serves nobody: a crash from here on lets the next attempt begin anew.
    mark.write(&places.mark())?;
    places.clear()?;
    let repo = &order.workspace.repo;
    let cache = Cache::open(order.base, repo, order.runner).await?;
    let base = match saved {
        Some(saved) => cache.commit(&saved.base).await?,
        None => {
            let from = order.workspace.from.as_ref();
            let from = from.map(|from| branch(order.job, from.as_str()));
            let from = from.as_deref().map(|from| (from, order.from_commit));
            cache.start(order.workspace, from).await?
        }
    };
    copy(cache.git.dir(), git.dir(), &cache.git).await?;
    drop(cache);
    make(&places.tree)?;
    let config = config(&places.tree);
    super::folders::write(&places.config(), config.as_bytes())?;
    super::folders::write(&git.dir().join("config"), config.as_bytes())?;
    let head = saved.map_or(&base, |saved| &saved.head);
    if let Some(saved) = saved {
        saved.fetch(git).await?;
    }
    let name = format!("refs/heads/{}", mark.branch);
    let update = git.call("make the branch");
    update.args(["update-ref", &name, head]).bytes().await?;
    let point = git.call("make the branch");
    point.args(["symbolic-ref", "HEAD", &name]).bytes().await?;
    let fill = git.call("fill the working tree");
    let tree = saved.map_or(head, |saved| &saved.work);
    // Not `checkout`: HEAD stays where it is, and what differs from it is uncommitted.
    fill.args(["read-tree", "--reset", "-u", tree])
        .bytes()
        .await?;
    if saved.is_some() {
        let unstage = git.call("fill the working tree");
        unstage.args(["read-tree", "--reset", head]).bytes().await?;
    }
    let link = format!("gitdir: {}\n", git.dir().display());
    let file = places.tree.join(".git");
    fs::write(&file, link).map_err(SpaceError::host("write", &file))?;
    if let Some(saved) = saved {
        saved.settle(git).await?;
    }
    let mark = Mark { base, ..mark };
    mark.write(&places.mark())?;
    Ok(mark)
}

/// A repository with all that was fetched: its objects are links to the same files, its branches its own.
async fn copy(from: &Path, to: &Path, git: &Git) -> Result<(), SpaceError> {
    let clone = git.call("copy what was fetched");
    clone
        .args(["clone", "-q", "--mirror", "--local", "--template=", "--"])
        .args([from, to])
        .bytes()
        .await
        .map(drop)
}

/// The settings of a task's repository: nowhere to push to, since the runner brings the commits back.
fn config(tree: &Path) -> String {
    let tree = tree.display().to_string();
    let tree = tree.replace('\\', "\\\\").replace('"', "\\\"");
    format!(
        "[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tworktree = \"{tree}\"\n\
         \tlogallrefupdates = true\n\thooksPath = /dev/null\n\
         [user]\n\tname = {NAME}\n\temail = {EMAIL}\n\
         [gc]\n\tauto = 0\n[commit]\n\tgpgSign = false\n[advice]\n\tdetachedHead = false\n"
    )
}

impl Space {
    /// Puts away what a program leaves that was killed, or that changed the settings: nobody else is at work here.
    pub(super) fn settle_down(&self) -> Result<(), SpaceError> {
        let dir = self.git.dir();
        let config = fs::read(self.places.config());
        let config = config.map_err(SpaceError::host("read", self.places.config()))?;
        super::folders::write(&dir.join("config"), &config)?;
        let link = format!("gitdir: {}\n", dir.display());
        let file = self.places.tree.join(".git");
        if fs::read(&file).ok().as_deref() != Some(link.as_bytes()) {
            remove(&file)
                .and_then(|()| fs::write(&file, link))
                .map_err(SpaceError::host("write", &file))?;
        }
        remove_locks(dir).map_err(SpaceError::host("clear", dir))
    }
}

/// Removes whatever is there.
fn remove(path: &Path) -> std::io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => remove_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

/// Removes locks of git, which its death leaves behind.
fn remove_locks(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() && entry.file_name() != "objects" {
            remove_locks(&path)?;
        } else if path.extension().is_some_and(|end| end == "lock") {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}
