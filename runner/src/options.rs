//! What a runner is told by its environment: where NATS is, and which claim it works under.

use std::time::Duration;

use air_protocol::codec::decode_state;
use air_protocol::job::JobState;
use air_protocol::limits::START_WITHIN_PROCESS;
use air_protocol::names::{JobName, NameError};
use air_protocol::quote::quote;
use uuid::Uuid;

/// The claim that a manager made for the runner.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The job (`AIR_JOB`).
    pub job: JobName,
    /// Stream sequence of the task's message (`AIR_SEQ`).
    pub seq: u64,
    /// Id of the runner (`AIR_RUNNER`).
    pub runner: Uuid,
    /// Revision of the claim in the job's key (`AIR_FENCE`).
    pub fence: u64,
    /// The key's value at that revision (`AIR_STATE`); read from the key where it is not given. The
    /// compare-and-swap at the fence decides either way.
    pub state: Option<Box<JobState>>,
}

impl Claim {
    /// Time to start in: afterwards nobody waits for this runner. That of the claim where its state is given.
    pub(crate) fn start_within(&self) -> Duration {
        let lease = self.state.as_ref().and_then(|state| state.lease());
        lease.map_or(START_WITHIN_PROCESS, |lease| lease.start_within.0)
    }
}

/// How a runner is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where NATS is, and as whom (`NATS_*`, `AIR_PREFIX`).
    pub nats: air_nats::Options,
    /// The claim.
    pub claim: Claim,
    /// Name of the backend that started the runner (`AIR_BACKEND`); `process` unless told.
    pub backend: String,
}

/// The environment does not say what to run.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// A variable is not there.
    #[error("{0} is not set; runners are started by a manager (`airx manager`), not by hand")]
    Missing(&'static str),
    /// A variable holds something else.
    #[error("{name} is `{}`, which is no {what}", quote(.value))]
    Unreadable {
        /// The variable.
        name: &'static str,
        /// What it holds.
        value: String,
        /// What it should hold.
        what: &'static str,
    },
    /// Not a job's name.
    #[error("AIR_JOB: {0}")]
    Job(NameError),
    /// The variables about NATS are wrong.
    #[error(transparent)]
    Nats(#[from] air_nats::ConnectError),
}

impl Options {
    /// The options that the environment gives; `var` looks a variable up.
    ///
    /// # Errors
    /// A variable is missing or holds what it should not.
    pub fn from_env(var: impl Fn(&str) -> Option<String>) -> Result<Self, OptionsError> {
        let need = |name| var(name).ok_or(OptionsError::Missing(name));
        let number = |name| {
            let value = need(name)?;
            value.parse().map_err(|_| OptionsError::Unreadable {
                name,
                value,
                what: "sequence number",
            })
        };
        let runner = need("AIR_RUNNER")?;
        let claim = Claim {
            job: need("AIR_JOB")?.parse().map_err(OptionsError::Job)?,
            seq: number("AIR_SEQ")?,
            fence: number("AIR_FENCE")?,
            state: var("AIR_STATE")
                .and_then(|text| decode_state(text.as_bytes()).ok())
                .map(Box::new),
            runner: Uuid::parse_str(&runner).map_err(|_| OptionsError::Unreadable {
                name: "AIR_RUNNER",
                value: runner,
                what: "UUID",
            })?,
        };
        Ok(Self {
            nats: air_nats::Options::from_env(&var)?,
            claim,
            backend: var("AIR_BACKEND").unwrap_or_else(|| "process".to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: (&str, Option<&str>)) -> Result<Options, OptionsError> {
        Options::from_env(|name| match name {
            _ if name == change.0 => change.1.map(str::to_owned),
            "AIR_JOB" => Some("j".into()),
            "AIR_SEQ" | "AIR_FENCE" => Some("7".into()),
            "AIR_RUNNER" => Some(Uuid::nil().to_string()),
            _ => None,
        })
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let options = with(("AIR_BACKEND", Some("docker"))).unwrap();
        assert_eq!((options.claim.seq, options.backend.as_str()), (7, "docker"));
        for (name, value) in [
            ("AIR_JOB", None),
            ("AIR_JOB", Some("a.b")),
            ("AIR_SEQ", Some("x")),
            ("AIR_FENCE", None),
            ("AIR_RUNNER", Some("me")),
        ] {
            let error = with((name, value)).unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
    }
}
