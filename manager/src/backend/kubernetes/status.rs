//! What a pod's status says of its runner: a pure function of the pod.
//!
//! The container `task` decides, and not the phase of the pod: a template may have put other containers beside it.

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodStatus,
};

use super::pod::{INIT, TASK};
use crate::backend::{Exit, SpawnError};

/// What can be seen of a runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is on its way; what it waits for, where that is said.
    Coming(Option<String>),
    /// It will not start as things are.
    Stuck(SpawnError),
    /// It has started.
    Runs,
    /// It has ended.
    Ended {
        exit: Exit,
        /// It had started before.
        ran: bool,
        /// What is said of it.
        text: String,
    },
}

/// Why a container waits that will not come: its image cannot be had.
const NO_IMAGE: [&str; 5] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
];
/// Why a container waits that cannot be made.
const NO_CONTAINER: [&str; 3] = [
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// What a pod says of its runner.
pub(super) fn seen(pod: &Pod) -> Seen {
    let Some(status) = &pod.status else {
        return Seen::Coming(None);
    };
    let task = container(status.container_statuses.as_deref(), TASK);
    let state = task.and_then(|task| task.state.as_ref());
    if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
        return of_ended(status, pod, ended);
    }
    let is_over = status.phase.as_deref().is_some_and(is_over);
    if state.is_some_and(|state| state.running.is_some()) {
        return if is_over { gone(pod, true) } else { Seen::Runs };
    }
    let init = container(status.init_container_statuses.as_deref(), INIT);
    if let Some(stuck) = init
        .and_then(|one| stuck(one, false))
        .or_else(|| task.and_then(|one| stuck(one, true)))
    {
        return Seen::Stuck(stuck);
    }
    if is_over {
        return gone(pod, false);
    }
    Seen::Coming(waits_for(status))
}

/// What the last that was seen of a pod says, once it is deleted.
pub(super) fn of_deleted(pod: &Pod) -> Seen {
    match seen(pod) {
        ended @ Seen::Ended { .. } => ended,
        before => gone(pod, before == Seen::Runs),
    }
}

fn is_over(phase: &str) -> bool {
    matches!(phase, "Failed" | "Succeeded")
}

fn container<'a>(all: Option<&'a [ContainerStatus]>, name: &str) -> Option<&'a ContainerStatus> {
    all?.iter().find(|one| one.name == name)
}

fn of_ended(status: &PodStatus, pod: &Pod, ended: &ContainerStateTerminated) -> Seen {
    let reason = ended.reason.as_deref().unwrap_or_default();
    let text = said([Some(reason), ended.message.as_deref()]);
    if matches!(reason, "StartError" | "ContainerCannotRun") {
        let text = format!("the container {} cannot be started: {text}", image_of(pod));
        return Seen::Stuck(SpawnError::Refused(text));
    }
    let (taken, why) = match taken(pod) {
        Some((exit, why)) => (Some(exit), why),
        None => (None, String::new()),
    };
    let exit = match ended.exit_code {
        code @ ..128 if taken.is_none() || code == 0 => Exit::Code(code),
        _ if reason == "OOMKilled" => Exit::OutOfMemory,
        _ => taken.unwrap_or(Exit::Killed),
    };
    let message = status.message.as_deref();
    Seen::Ended {
        exit,
        ran: true,
        text: said([Some(text.as_str()), Some(why.as_str()), message]),
    }
}

/// It is there no longer, and nobody says how it ended.
fn gone(pod: &Pod, ran: bool) -> Seen {
    let (exit, text) = taken(pod).unwrap_or((Exit::Killed, "the pod is gone".to_owned()));
    Seen::Ended { exit, ran, text }
}

/// Who took the pod away, where it did not end by itself.
fn taken(pod: &Pod) -> Option<(Exit, String)> {
    let status = pod.status.as_ref()?;
    let disrupted = status
        .conditions
        .iter()
        .flatten()
        .find(|one| one.type_ == "DisruptionTarget" && one.status == "True");
    let (reason, message) = match disrupted {
        Some(one) => (one.reason.as_deref(), one.message.as_deref()),
        None => (status.reason.as_deref(), status.message.as_deref()),
    };
    let exit = match reason? {
        "DeletionByPodGC" | "NodeLost" => Exit::NodeLost,
        "EvictionByEvictionAPI"
        | "PreemptionByScheduler"
        | "PreemptionByKubeScheduler"
        | "DeletionByTaintManager"
        | "TerminationByKubelet"
        | "Evicted"
        | "Preempting"
        | "Terminated"
        | "NodeShutdown" => Exit::Evicted,
        _ => return None,
    };
    Some((exit, said([reason, message])))
}

/// Why a container will not start. The task's own image is the task's fault, everything else that of the configuration.
fn stuck(container: &ContainerStatus, is_task: bool) -> Option<SpawnError> {
    let state = container.state.as_ref()?;
    let text = why_stuck(state, &container.image)?;
    Some(if is_task {
        SpawnError::Refused(text)
    } else {
        SpawnError::Unavailable(format!("the init container that brings the runner: {text}"))
    })
}

fn why_stuck(state: &ContainerState, image: &str) -> Option<String> {
    if let Some(ended) = state
        .terminated
        .as_ref()
        .filter(|ended| ended.exit_code != 0)
    {
        let why = said([ended.reason.as_deref(), ended.message.as_deref()]);
        return Some(format!(
            "it ended with the exit code {}: {why}",
            ended.exit_code
        ));
    }
    let waiting = state.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    let message = waiting.message.as_deref().unwrap_or_default();
    let text = said([Some(reason), Some(message)]);
    if NO_IMAGE.contains(&reason) {
        return Some(format!("the image `{image}` cannot be had: {text}"));
    }
    // The secret is made after its pod, which owns it.
    let comes = message.starts_with("secret ") && message.ends_with(" not found");
    (NO_CONTAINER.contains(&reason) && !comes)
        .then(|| format!("no container can be made from the image `{image}`: {text}"))
}

/// What a pod waits for, in the words of the scheduler or the kubelet.
fn waits_for(status: &PodStatus) -> Option<String> {
    let unmet = status
        .conditions
        .iter()
        .flatten()
        .find(|one| one.type_ == "PodScheduled" && one.status == "False");
    if let Some(unmet) = unmet {
        return Some(said([unmet.reason.as_deref(), unmet.message.as_deref()]));
    }
    let all = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .flatten();
    let mut waiting = all.filter_map(|one| one.state.as_ref()?.waiting.as_ref());
    waiting
        .next()
        .map(|one| said([one.reason.as_deref(), one.message.as_deref()]))
}

fn image_of(pod: &Pod) -> String {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut task = containers.filter(|one| one.name == TASK);
    let image = task.next().and_then(|one| one.image.as_deref());
    format!("of the image `{}`", image.unwrap_or_default())
}

/// What is said, with a colon between.
fn said<const N: usize>(parts: [Option<&str>; N]) -> String {
    let parts = parts.into_iter().flatten().map(str::trim);
    parts
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(": ")
}

#[cfg(test)]
mod tests;
