//! The working tree of an agent: made before the CLI starts, finished when it has ended, removed when the task is over.
//!
//! What it is made of is told by [`crate::workspace`]; here is what records and the task say of it.

use std::fs;
use std::path::{Path, PathBuf};

use air_protocol::agent::{Failure, workspace_blob};
use air_protocol::claude::{Claude, Workspace};
use air_protocol::fate::Outcome;
use air_protocol::limits::WORKSPACE_SAVED_BYTES_MAX;
use air_protocol::quote::quote;
use air_protocol::task::Task;
use serde_json::Value;

use super::stage::Trouble;
use crate::execute::workdir::Workdir;
use crate::hold::Hold;
use crate::judge::Report;
use crate::patience::for_a_while;
use crate::workspace::{Base, Order, Origin, Space, SpaceError, Start, Summary, prepare};

/// Characters of what the agent said that stand in the message of the last commit.
const MESSAGE_CHARS_MAX: usize = 2000;

/// The working tree that a task asks for; none where it asks for none. It `goes_on` with the session, and begins anew
/// with it.
pub(super) async fn open(
    hold: &Hold,
    task: &Task,
    claude: &Claude,
    goes_on: bool,
    workdir: &Workdir,
) -> Result<Option<Space>, Trouble> {
    let Some(workspace) = &claude.workspace else {
        return Ok(None);
    };
    let from_commit = from_commit(task, workspace, workdir)?;
    let file = workdir.path().join("workspace.saved");
    let start = match goes_on {
        false => Start::Fresh,
        true => {
            let saved = load(hold, &file).await.map_err(trouble)?;
            let saved = saved.map(|attempt| (attempt, file.as_path()));
            Start::Resume { saved }
        }
    };
    let runner = hold.runner.to_string();
    let order = Order {
        base: &base(),
        system: &system(),
        job: hold.job.as_str(),
        task: hold.target.task.as_str(),
        attempt: hold.target.attempt,
        runner: &runner,
        workspace,
        from_commit: from_commit.as_deref(),
    };
    let mut stop = hold.brake.stop();
    let space = tokio::select! {
        made = prepare(&order, start) => made.map_err(trouble)?,
        // The caller knows why.
        _ = stop.wait_for(Option::is_some) => return Err(trouble(SpaceError::Stopped)),
    };
    tracing::debug!(origin = ?space.origin(), path = %space.path().display(), "working tree");
    Ok(Some(space))
}

/// Writes what an earlier attempt saved to `file`, and gives its number; none where there is nothing.
async fn load(hold: &Hold, file: &Path) -> Result<Option<u32>, SpaceError> {
    let name = workspace_blob(&hold.job, &hold.target.task);
    let blob = for_a_while(async || hold.nats.get_blob(&name).await).await;
    let blob = blob.unwrap_or_else(|error| {
        tracing::warn!(%error, "the saved working tree cannot be read");
        None
    });
    let Some((attempt, bundle)) = blob.as_deref().and_then(parts) else {
        return Ok(None);
    };
    fs::write(file, bundle).map_err(SpaceError::host("write", file))?;
    Ok(Some(attempt))
}

/// The blob: a line with the number of the attempt, and the saved tree.
fn parts(blob: &[u8]) -> Option<(u32, &[u8])> {
    let end = blob.iter().position(|byte| *byte == b'\n')?;
    let attempt = std::str::from_utf8(&blob[..end]).ok()?.parse().ok()?;
    Some((attempt, &blob[end + 1..]))
}

/// Where the needed task ended, as its record tells it.
fn from_commit(
    task: &Task,
    workspace: &Workspace,
    workdir: &Workdir,
) -> Result<Option<String>, Trouble> {
    let Some(from) = &workspace.from else {
        return Ok(None);
    };
    let need = (task.needs.iter()).find(|need| need.job.is_none() && need.task == *from);
    let Some(need) = need else {
        let text = format!(
            "`workspace.from` names the task `{from}`, which is none of its `needs`; add it there"
        );
        return Err(trouble(SpaceError::Refused(text)));
    };
    let needs = fs::read(workdir.needs()).unwrap_or_default();
    let needs: Value = serde_json::from_slice(&needs).unwrap_or_default();
    let commit = &needs[need.to_string()]["output"]["commit"];
    Ok(commit.as_str().map(str::to_owned))
}

/// The folder in the tree in which the agent works.
pub(super) fn folder(space: &Space, task: &Task) -> Result<PathBuf, Trouble> {
    let Some(cwd) = &task.cwd else {
        return Ok(space.path().to_owned());
    };
    let inside = Path::new(cwd);
    let steps = inside.components();
    let mut plain = steps.map(|step| matches!(step, std::path::Component::Normal(_)));
    if plain.all(|plain| plain) {
        return Ok(space.path().join(inside));
    }
    let text = format!(
        "`cwd` is `{}`; with a `workspace` it is a folder of the repository",
        quote(cwd)
    );
    Err(trouble(SpaceError::Refused(text)))
}

fn trouble(error: SpaceError) -> Trouble {
    let outcome = match error.is_for_good() {
        true => Outcome::FailedForGood,
        false => Outcome::Failed,
    };
    Trouble {
        failure: Failure::Workspace,
        outcome,
        text: error.to_string(),
    }
}

/// Brings the work of an attempt that succeeded to the repository.
pub(super) async fn finish(space: &Space, said: &str) -> Result<Summary, Trouble> {
    space.finish(&message(space, said)).await.map_err(trouble)
}

/// Brings what there is of a failed attempt to the repository, as far as that is possible; its commit.
pub(super) async fn leave(space: &Space, report: &Report) -> Option<String> {
    let error = report.error.as_deref().unwrap_or_default();
    let left = space.publish_unfinished(&message(space, error)).await;
    left.unwrap_or_else(|error| {
        tracing::warn!(%error, "the unfinished work stays on this host");
        None
    })
}

fn message(space: &Space, said: &str) -> String {
    let said: String = said.chars().take(MESSAGE_CHARS_MAX).collect();
    format!("Work of {}\n\n{}\n", space.branch(), said.trim())
}

/// Saves what the next attempt goes on from, on whatever host. It can begin without, and so nothing fails for it.
pub(super) async fn save(hold: &Hold, space: &Space, workdir: &Path) {
    let file = workdir.join("workspace.save");
    let stored = async {
        space.save(&file).await.map_err(|error| error.to_string())?;
        let length = fs::metadata(&file).map_or(0, |found| found.len());
        if length > WORKSPACE_SAVED_BYTES_MAX {
            return Err(format!("it has {length} bytes"));
        }
        let mut blob = format!("{}\n", hold.target.attempt).into_bytes();
        blob.extend(fs::read(&file).map_err(|error| error.to_string())?);
        let name = workspace_blob(&hold.job, &hold.target.task);
        let stored = for_a_while(async || hold.nats.put_blob(&name, &blob).await).await;
        stored.map_err(|error| error.to_string())
    };
    if let Err(error) = stored.await {
        tracing::warn!(%error, "the working tree stays on this host");
    }
}

/// Deletes what was saved of a task that is done.
pub(super) async fn forget(hold: &Hold) {
    let name = workspace_blob(&hold.job, &hold.target.task);
    if let Err(error) = hold.nats.delete_blob(&name).await {
        tracing::debug!(%error, "the saved working tree stays until its record goes");
    }
}

/// What a session is told whose files are not all as it left them.
pub(super) fn note(space: &Space) -> &'static str {
    match space.origin() {
        Origin::Kept => "",
        Origin::Restored => {
            "\nYou work on another host now: files that git ignores, such as build folders, are gone, and so may be your \
             very last changes. Look at the working tree first."
        }
        Origin::Fresh => {
            "\nThe working tree is new: nothing of what you changed in it is there any more. Look at it first."
        }
    }
}

/// Removes the working tree of a task that is over.
pub(crate) async fn remove(hold: &Hold) {
    let (job, task) = (hold.job.to_string(), hold.target.task.to_string());
    let removed = tokio::task::spawn_blocking(move || {
        crate::workspace::sweep::remove(&base(), &system(), &job, &task)
    });
    match removed.await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            tracing::warn!(%error, "the working tree stays until a manager removes it")
        }
        Err(error) => tracing::warn!(%error, "the working tree stays until a manager removes it"),
    }
}

fn base() -> Base {
    Base::from_env(|name| std::env::var_os(name))
}

/// The installation.
fn system() -> String {
    std::env::var("AIR_SYSTEM").unwrap_or_default()
}
