//! Backends: the infrastructures that start runners.
//!
//! [`Backend`] is the contract. [`fleet`] holds those that one manager has, and is all that the rest of the manager
//! knows; [`process`] starts child processes, [`docker`] containers, [`kubernetes`] pods, [`airflow`] runs of a DAG, [`prefect`] flow runs, [`webhook`]
//! whatever it is told to ask for. [`watched`] is what those have in common that tell of ends by themselves, [`polled`] what
//! those have that are asked by [`http`] and polled. No backend knows NATS, leases or decisions.

pub(crate) mod airflow;
pub(crate) mod docker;
pub(crate) mod fleet;
pub(crate) mod http;
pub(crate) mod kubernetes;
pub(crate) mod polled;
pub(crate) mod prefect;
pub(crate) mod process;
pub(crate) mod watched;
pub(crate) mod webhook;

use std::collections::HashSet;
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use air_protocol::names::JobName;
use air_protocol::task::Resources;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::offers::Offer;

/// What a backend answers once it is done.
pub(crate) type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An infrastructure that starts runners. Everything is asked of it by the id of a runner, and may be asked twice.
pub(crate) trait Backend: Debug + Send + Sync {
    /// What it can run, as far as it knows now.
    fn offer(&self) -> Offer;

    /// Time from a claim until its runner must be there, to be looked for by [`Backend::gone`]: until then its manager
    /// may be about to start it.
    fn spawn_within(&self) -> Duration;

    /// Starts a runner. The same order makes no second one, whoever gave it before.
    fn spawn(&self, order: Arc<Order>) -> Later<'_, Result<Spawned, SpawnError>>;

    /// Tells of the runners that this manager started as they end, for ever. Whatever it misses, [`Backend::gone`] finds.
    fn watch(self: Arc<Self>, ends: mpsc::UnboundedSender<End>) -> Later<'static, ()>;

    /// Whether it tells of all ends. One that cannot leaves them to the keys of jobs, and lost runners to their leases.
    fn tells_ends(&self) -> bool {
        true
    }

    /// Asks a runner that this manager started to end its task and itself.
    fn stop(&self, runner: Uuid) -> Later<'_, ()>;

    /// Ends a runner that was judged dead, and all of its task, whoever started it; what is not there is fine. Gives how it was found
    /// to have ended, where the infrastructure says more than that it is gone.
    fn kill(&self, runner: Uuid) -> Later<'_, Option<Exit>>;

    /// Those of these runners that live no longer, for sure. Their leases name the realm of the offer; what cannot be looked
    /// at proves nobody dead.
    fn gone(&self, runners: HashSet<Uuid>) -> Later<'_, HashSet<Uuid>>;

    /// Clears away what dead runners of the installation left behind: at the start of a manager, and every
    /// [`SWEEP_EVERY`](air_protocol::limits::SWEEP_EVERY).
    fn clear(&self) -> Later<'_, ()>;
}

/// A runner to be started. Starting the same one twice is harmless: the second finds its lease started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    /// The job.
    pub(crate) job: JobName,
    /// Stream sequence of the task's message.
    pub(crate) seq: u64,
    /// Id of the runner.
    pub(crate) runner: Uuid,
    /// Revision of the claim.
    pub(crate) fence: u64,
    /// Name of the backend.
    pub(crate) backend: String,
    /// The key's value at that revision, which spares the runner a read; none where it is too long to hand over.
    pub(crate) state: Option<String>,
    /// Image that the task asks for.
    pub(crate) image: Option<String>,
    /// Resources that the task asks for.
    pub(crate) resources: Option<Resources>,
}

impl Order {
    /// The environment that tells a runner its claim.
    pub(crate) fn env(&self) -> Vec<(&'static str, String)> {
        let mut env = vec![
            ("AIR_JOB", self.job.to_string()),
            ("AIR_SEQ", self.seq.to_string()),
            ("AIR_RUNNER", self.runner.to_string()),
            ("AIR_FENCE", self.fence.to_string()),
            ("AIR_BACKEND", self.backend.clone()),
        ];
        env.extend(self.state.clone().map(|state| ("AIR_STATE", state)));
        env
    }

    /// A name for what is started, that no other order of the installation `system` has, and any infrastructure takes: at most
    /// 63 of `a-z0-9-`. The job is in it for people, and its hash for the rest.
    pub(crate) fn name(&self, system: &str) -> String {
        let job = self.job.as_str();
        let plain = |c: char| c.to_ascii_lowercase();
        let known = |c: &char| c.is_ascii_alphanumeric();
        let shown: String = job.chars().filter(known).map(plain).take(22).collect();
        let hash = fnv(system.bytes().chain([0]).chain(job.bytes()));
        format!("air-{shown}-{hash:016x}-{}", self.fence)
    }
}

/// The FNV-1a hash of 64 bits: the same in every version of every manager.
fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A runner was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spawned {
    /// By this request.
    Done,
    /// By an earlier one, whose answer was lost.
    AlreadyThere,
}

/// A runner was not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpawnError {
    /// The infrastructure is down; never counted against the task.
    #[error("{0}")]
    Unavailable(String),
    /// The task asks for what cannot be; the fifth time is a failed attempt.
    #[error("{0}")]
    Refused(String),
}

/// A runner is there no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// The runner.
    pub(crate) runner: Uuid,
    /// How it ended.
    pub(crate) exit: Exit,
}

/// How a runner ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By a signal, or nobody knows how.
    Killed,
    /// It and its task had more memory than they may have.
    OutOfMemory,
    /// The infrastructure took its place away.
    Evicted,
    /// The machine that it ran on is gone, or does not answer.
    NodeLost,
}

impl Exit {
    /// Whether it ended as it should.
    pub(crate) fn is_clean(self) -> bool {
        self == Self::Code(0)
    }

    /// Whether it says that it could not try: there was no NATS; or what a program around the runner
    /// says for `later` (`EX_TEMPFAIL`).
    pub(crate) fn is_unavailable(self) -> bool {
        let later = [air_runner::Exit::Unavailable.code(), 75];
        later
            .map(|code| Self::Code(i32::from(code)))
            .contains(&self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(job: &str, fence: u64) -> Order {
        Order {
            job: job.parse().unwrap(),
            seq: 1,
            runner: Uuid::nil(),
            fence,
            backend: "b".into(),
            state: None,
            image: None,
            resources: None,
        }
    }

    #[test]
    fn a_name_is_that_of_one_order_and_fits_everywhere() {
        assert_eq!(
            fnv("a".bytes()),
            0xaf63_dc4c_8601_ec8c,
            "the published value"
        );
        let name = order("Night_ly", 7).name("s");
        assert!(
            name.starts_with("air-nightly-") && name.ends_with("-7"),
            "{name}"
        );
        assert_eq!(name, order("Night_ly", 7).name("s"));
        let others = [
            order("Night_ly", 8).name("s"),
            order("nightly", 7).name("s"),
            order("Night_ly", 7).name("t"),
        ];
        assert!(others.iter().all(|other| *other != name), "{others:?}");
        let longest = order(&"J".repeat(64), 99_999_999_999_999_999).name("s");
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(
            longest.len() <= 63 && longest.chars().all(fits),
            "{longest}"
        );
    }

    #[test]
    fn an_exit_is_clean_says_later_or_neither() {
        let exits = [
            Exit::Code(0),
            Exit::Code(69),
            Exit::Code(75),
            Exit::Code(1),
            Exit::Killed,
            Exit::OutOfMemory,
        ];
        let clean = exits.map(Exit::is_clean);
        assert_eq!(clean, [true, false, false, false, false, false]);
        let later = exits.map(Exit::is_unavailable);
        assert_eq!(later, [false, true, true, false, false, false]);
    }
}
