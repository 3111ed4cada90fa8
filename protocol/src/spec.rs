//! The spec: what a user wants of a job, in the bucket `air-specs` under the job's name.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::VERSION;
use crate::approval::{self, ApprovalFault, ApprovalRule};
use crate::budget::Budget;
use crate::cost::Usd;
use crate::limits::{KEEP_DEFAULT, KEEP_MIN, LEASE_TTL_DEFAULT, LEASE_TTL_MIN, TIMEOUT_DEFAULT};
use crate::quote::quote;
use crate::task::{ResourceRule, Resources, Retry, Task, is_env_name};
use crate::time::Span;

/// The wishes of a user for one job; all optional.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Version of the spec; 1 when absent.
    #[serde(default = "version")]
    pub v: u8,
    /// Claim no further task; what runs goes on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// What happens when a task fails for good.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Time that a task may run; 30m when absent, 0 for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// What happens after a failed attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Environment variables of every task.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Backend of every task that names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Image of every task that names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Resources of every task that names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Labels by which people find the job.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Time without renewal after which a runner counts as dead; 30s when absent, 3s at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ttl: Option<Span>,
    /// Time for which records and logs of finished tasks are kept; 7d when absent, 1d at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Span>,
    /// Time for which a task may wait for a task that nobody has published; for ever when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs_timeout: Option<Span>,
    /// Codec of what the system writes for this job.
    #[serde(default)]
    pub wire: Wire,
    /// What the job, with all that its tasks queue, may take at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// Rules by which a task waits for a person before it runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approval: Vec<ApprovalRule>,
    /// What holds for every task of the kind `claude`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claude: Option<ClaudeDefaults>,
}

/// What holds for every task of the kind `claude` in a job.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ClaudeDefaults {
    /// Model of tasks that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Turns of tasks that give none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_turns: Option<u32>,
    /// Money of tasks that give none, in US dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_budget_usd: Option<Usd>,
    /// Whether tasks may ask for the permission mode `bypassPermissions`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bypass_permissions: bool,
}

/// The fields of a spec, as they stand in JSON.
pub const SPEC_FIELDS: &[&str] = &[
    "v",
    "paused",
    "on_failure",
    "timeout",
    "retry",
    "env",
    "backend",
    "image",
    "resources",
    "labels",
    "lease_ttl",
    "keep",
    "needs_timeout",
    "wire",
    "budget",
    "approval",
    "claude",
];

fn version() -> u8 {
    VERSION
}

/// What happens to a job when one of its tasks fails for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The job becomes `failed`; nothing more is started until a user retries or resumes it.
    #[default]
    Stop,
    /// The other tasks go on.
    Continue,
}

/// Codec of what the system writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Wire {
    /// JSON.
    #[default]
    Json,
    /// MessagePack, with names of fields.
    Msgpack,
}

/// A rule that a spec breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecRule {
    /// The version is not known.
    #[error("`v` is {0}, but this version of Air-Executor knows only {VERSION}; update it")]
    Version(u8),
    /// A lease so short that no runner could hold it.
    #[error("`lease_ttl` is {0}, but {min} is the least", min = Span(LEASE_TTL_MIN))]
    LeaseTtl(Span),
    /// Records that would be gone while they are needed.
    #[error("`keep` is {0}, but {min} is the least", min = Span(KEEP_MIN))]
    Keep(Span),
    /// An environment variable that cannot be set.
    #[error(
        "`env` has the name `{}`; a name is not empty, has no `=` and does not begin with AIR_",
        quote(.0)
    )]
    EnvName(String),
    /// A NUL byte, which no program can be given.
    #[error("`env` has a NUL byte in the value of `{}`; take it out", quote(.0))]
    EnvValue(String),
    /// A rule by which tasks wait for a person.
    #[error(transparent)]
    Approval(#[from] ApprovalFault),
    /// Resources that are no quantities.
    #[error(transparent)]
    Resources(#[from] ResourceRule),
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            v: VERSION,
            paused: false,
            on_failure: OnFailure::Stop,
            timeout: None,
            retry: None,
            env: BTreeMap::new(),
            backend: None,
            image: None,
            resources: None,
            labels: BTreeMap::new(),
            lease_ttl: None,
            keep: None,
            needs_timeout: None,
            wire: Wire::Json,
            budget: None,
            approval: Vec::new(),
            claude: None,
        }
    }
}

impl Spec {
    /// Time without renewal after which a runner counts as dead.
    pub fn lease_ttl(&self) -> Duration {
        self.lease_ttl.map_or(LEASE_TTL_DEFAULT, |span| span.0)
    }

    /// Time for which records are kept.
    pub fn keep(&self) -> Duration {
        self.keep.map_or(KEEP_DEFAULT, |span| span.0)
    }

    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first rule that the spec breaks.
    pub fn check(&self) -> Result<(), SpecRule> {
        if self.v != VERSION {
            return Err(SpecRule::Version(self.v));
        }
        if self.lease_ttl() < LEASE_TTL_MIN {
            return Err(SpecRule::LeaseTtl(Span(self.lease_ttl())));
        }
        if self.keep() < KEEP_MIN {
            return Err(SpecRule::Keep(Span(self.keep())));
        }
        approval::check(&self.approval)?;
        if let Some(resources) = &self.resources {
            resources.check()?;
        }
        if let Some(name) = self.env.keys().find(|name| !is_env_name(name)) {
            return Err(SpecRule::EnvName(name.clone()));
        }
        match self.env.iter().find(|(_, value)| value.contains('\0')) {
            Some((name, _)) => Err(SpecRule::EnvValue(name.clone())),
            None => Ok(()),
        }
    }

    /// Time that `task` may run; none for no limit.
    pub fn timeout_of(&self, task: &Task) -> Option<Duration> {
        let timeout = task
            .timeout
            .or(self.timeout)
            .map_or(TIMEOUT_DEFAULT, |span| span.0);
        (!timeout.is_zero()).then_some(timeout)
    }

    /// What happens after a failed attempt of `task`.
    pub fn retry_of(&self, task: &Task) -> Retry {
        let defaults = self.retry.clone().unwrap_or_default();
        task.retry
            .as_ref()
            .map_or(defaults.clone(), |retry| retry.or(&defaults))
    }

    /// The environment of `task`: its own variables over the job's.
    pub fn env_of(&self, task: &Task) -> BTreeMap<String, String> {
        let mut env = self.env.clone();
        env.extend(task.env.clone());
        env
    }

    /// The backend that must run `task`; none for any.
    pub fn backend_of<'a>(&'a self, task: &'a Task) -> Option<&'a str> {
        task.backend.as_deref().or(self.backend.as_deref())
    }

    /// The image of `task`.
    pub fn image_of<'a>(&'a self, task: &'a Task) -> Option<&'a str> {
        task.image.as_deref().or(self.image.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Work;

    #[test]
    fn a_task_overrides_its_job() {
        let mut spec: Spec = serde_json::from_str(
            r#"{"timeout": "5s", "retry": {"max": 1}, "env": {"A": "1", "B": "1"}}"#,
        )
        .unwrap();
        let mut task = Task::new(Work::Run("true".into()));
        assert_eq!(spec.timeout_of(&task), Some(Duration::from_secs(5)));
        assert_eq!(spec.retry_of(&task).failures_max(), 2);
        task.timeout = Some(Span(Duration::ZERO));
        task.retry = Some(Retry {
            backoff: Some(Span(Duration::from_secs(9))),
            ..Retry::default()
        });
        task.env.insert("B".into(), "2".into());
        assert_eq!(spec.timeout_of(&task), None);
        assert_eq!(spec.retry_of(&task).failures_max(), 2);
        assert_eq!(spec.retry_of(&task).delay(1, 0), Duration::from_secs(9));
        assert_eq!(spec.env_of(&task)["B"], "2");
        assert_eq!(spec.env_of(&task)["A"], "1");
        assert_eq!(spec.check(), Ok(()));
        spec.env.insert("C".into(), "1\0".into());
        assert_eq!(spec.check(), Err(SpecRule::EnvValue("C".into())));
        spec.env.clear();
        spec.lease_ttl = Some(Span(Duration::from_secs(1)));
        assert!(spec.check().is_err());
    }

    #[test]
    fn a_spec_that_says_nothing_has_the_defaults() {
        let spec: Spec = serde_json::from_str("{}").unwrap();
        assert_eq!((spec.v, spec.check()), (VERSION, Ok(())));
        assert_eq!(spec.lease_ttl(), LEASE_TTL_DEFAULT);
        assert_eq!(spec.keep(), KEEP_DEFAULT);
        let task = Task::new(Work::Run("true".into()));
        assert_eq!(spec.timeout_of(&task), Some(TIMEOUT_DEFAULT));
        assert_eq!((spec.backend_of(&task), spec.image_of(&task)), (None, None));
    }

    #[test]
    fn each_limit_is_the_least_that_may_be() {
        let check = |change: fn(&mut Spec)| {
            let mut spec = Spec::default();
            change(&mut spec);
            spec.check()
        };
        let little = Duration::from_millis(1);
        assert_eq!(check(|spec| spec.v = 2), Err(SpecRule::Version(2)));
        assert_eq!(
            check(|spec| spec.lease_ttl = Some(Span(LEASE_TTL_MIN))),
            Ok(())
        );
        assert_eq!(check(|spec| spec.keep = Some(Span(KEEP_MIN))), Ok(()));
        let mut spec = Spec {
            keep: Some(Span(KEEP_MIN - little)),
            ..Spec::default()
        };
        assert!(matches!(spec.check(), Err(SpecRule::Keep(_))));
        spec.lease_ttl = Some(Span(LEASE_TTL_MIN - little));
        assert!(matches!(spec.check(), Err(SpecRule::LeaseTtl(_))));
        let named = |name: &str| {
            let env = [(name.to_owned(), String::new())].into();
            let spec = Spec {
                env,
                ..Spec::default()
            };
            spec.check()
        };
        assert_eq!(named("AIR_JOB"), Err(SpecRule::EnvName("AIR_JOB".into())));
        assert_eq!(named("A"), Ok(()));
    }

    #[test]
    fn a_task_names_its_backend_and_image_or_its_job_does() {
        let spec = Spec {
            backend: Some("docker".into()),
            image: Some("debian".into()),
            ..Spec::default()
        };
        let mut task = Task::new(Work::Run("true".into()));
        assert_eq!(spec.backend_of(&task), Some("docker"));
        assert_eq!(spec.image_of(&task), Some("debian"));
        (task.backend, task.image) = (Some("process".into()), Some("alpine".into()));
        assert_eq!(spec.backend_of(&task), Some("process"));
        assert_eq!(spec.image_of(&task), Some("alpine"));
    }
}
