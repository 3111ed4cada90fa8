//! What dead runners leave on this machine: their processes, cgroups and temporary folders. Blocking, all of it.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use air_runner::execute::workdir::{abandoned, remove_left};
use air_runner::sweep::{self, Whom};
use uuid::Uuid;

use super::cgroup::{Cgroups, Group};

/// Time that a sweep of leftover processes may take.
const SWEEP_WITHIN: Duration = Duration::from_secs(10);
/// Time that a temporary folder stays as it is before it may count as left: its runner may be about to lock it.
const FOLDER_AGE: Duration = Duration::from_secs(60);

/// Kills a runner that was judged dead, and all that it left behind: what is in its cgroup, whatever that has become, and
/// what can be told by environment and ancestry.
pub(super) fn kill(runner: Uuid, group: Option<Group>) {
    let id = runner.to_string();
    let stuck = group.as_ref().map(end_group).unwrap_or_default();
    match sweep::sweep(|found| found == id, Whom::TasksAndRunners, SWEEP_WITHIN) {
        Ok(swept) if swept.left.is_empty() && stuck.is_empty() => {
            tracing::debug!(%runner, killed = swept.killed, "swept");
            remove_folder(&id);
        }
        Ok(swept) => {
            tracing::warn!(%runner, left = ?swept.left, ?stuck, "some processes cannot be killed")
        }
        Err(error) => tracing::warn!(%runner, %error, "could not look for processes"),
    }
}

/// Ends a group with all that is in it; gives what cannot be killed.
fn end_group(group: &Group) -> BTreeSet<i32> {
    if !group.exists() {
        return BTreeSet::new();
    }
    let stuck = group.kill(SWEEP_WITHIN);
    group.remove();
    stuck
}

/// The temporary folder of a runner that was killed, and so could not remove it.
fn remove_folder(runner: &str) {
    match remove_left(runner) {
        Ok(_) => {}
        Err(error) => tracing::warn!(runner, %error, "a temporary folder stays"),
    }
}

/// Clears away what runners of the installation left behind that live no longer.
pub(super) fn clear(system: &str, cgroups: Option<&Cgroups>) {
    match orphans(system) {
        Ok(0) => {}
        Ok(killed) => tracing::info!(killed, "swept processes of dead runners"),
        Err(error) => tracing::warn!(%error, "could not look for processes"),
    }
    if let Some(cgroups) = cgroups
        && let Err(error) = groups(cgroups)
    {
        tracing::warn!(%error, "could not look for runners, so that cgroups stay");
    }
    if let Err(error) = folders() {
        tracing::warn!(%error, "could not look for temporary folders of dead runners");
    }
}

/// Of any installation: nothing that a dead runner left without a process is of use to anybody.
fn folders() -> io::Result<()> {
    let mut left = BTreeSet::from_iter(abandoned(FOLDER_AGE)?);
    if left.is_empty() {
        return Ok(());
    }
    for process in sweep::find(|runner| left.contains(runner))? {
        left.remove(&process.runner);
    }
    left.iter().for_each(|runner| remove_folder(runner));
    Ok(())
}

fn orphans(system: &str) -> io::Result<usize> {
    let orphans = sweep::orphaned(system)?;
    let swept = sweep::sweep(|found| orphans.contains(found), Whom::Tasks, SWEEP_WITHIN)?;
    let stuck: BTreeSet<&String> = swept.left.iter().map(|found| &found.runner).collect();
    for runner in orphans.iter().filter(|runner| !stuck.contains(runner)) {
        remove_folder(runner);
    }
    Ok(swept.killed)
}

/// A group is made once its runner lives, so that one which is listed before the runners are, and has none, has none any more.
fn groups(cgroups: &Cgroups) -> io::Result<()> {
    let listed = cgroups.runners();
    if listed.is_empty() {
        return Ok(());
    }
    let live = sweep::live_runners()?;
    for runner in listed {
        let (id, group) = (runner.to_string(), cgroups.group(runner));
        if live.lacks(&id) {
            end_group(&group);
        } else if !live.has(&id) {
            // It may be one that cannot be seen: then it is in its group, which cannot be removed.
            group.remove();
        }
    }
    Ok(())
}
