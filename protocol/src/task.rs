//! The task: what a user publishes to `air.tasks.<job>`.
//!
//! A task is self-contained. [`Task::check`] holds every rule that types cannot; reading one from
//! bytes is [`crate::codec::decode_task`], which also names unknown fields.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::VERSION;
use crate::claude::{self, Claude, ClaudeRule};
use crate::limits::{
    BACKOFF_DEFAULT, BACKOFF_MAX_DEFAULT, LABELS_MAX, RETRIES_DEFAULT, TASK_NEEDS_MAX,
};
use crate::names::{JobName, NameError, TaskId};
use crate::quote::quote;
pub use crate::resources::{ResourceRule, Resources};
use crate::time::{Span, Time};

/// One unit of work. Only the work itself (`run`, `exec`, `claude` or `fanout`) must be given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("unevaluatedProperties" = false)))]
pub struct Task {
    /// Version of the message; 1 when absent.
    #[serde(default = "version")]
    pub v: u8,
    /// Name of the task within its job; `_<stream sequence>` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<TaskId>,
    /// What to do.
    #[serde(flatten)]
    pub work: Work,
    /// Tasks that must be over before this one starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Need>,
    /// Any JSON, handed to the task in the file `AIR_INPUT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory; the task's own temporary folder when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Time the task may run; 30m when absent, 0 for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// What happens after a failed attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Name of the backend that must run the task; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Container image, for backends that run containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Resources, for backends that can reserve them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Earliest start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// In a sub-task: the job into which it is queued; its parent's job when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobName>,
    /// Labels by which people find the task.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Whether a person must approve the task before it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
}

/// Whether a person must approve a task before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Approval {
    /// One must.
    Required,
}

fn version() -> u8 {
    VERSION
}

/// The fields of a task, as they stand in JSON.
pub const TASK_FIELDS: &[&str] = &[
    "v",
    "id",
    "run",
    "exec",
    "claude",
    "fanout",
    "needs",
    "input",
    "env",
    "cwd",
    "timeout",
    "retry",
    "backend",
    "image",
    "resources",
    "not_before",
    "job",
    "labels",
    "approval",
];

/// The fields of a task of which exactly one is given.
pub const WORK_FIELDS: &[&str] = &["run", "exec", "claude", "fanout"];

/// What a task does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Work {
    /// A line for `/bin/sh -c`.
    Run(String),
    /// A program and its arguments, without a shell.
    Exec(Vec<String>),
    /// A prompt for the Claude Code CLI, with its bounds.
    Claude(
        #[serde(deserialize_with = "claude::text_or_whole")]
        #[cfg_attr(feature = "schema", schemars(with = "claude::TextOrClaude"))]
        Box<Claude>,
    ),
    /// The rest of a fan-out that did not fit into one batch (written by the system only).
    Fanout(Fanout),
}

impl Work {
    /// The work in a few words, on one line.
    pub fn summary(&self) -> String {
        match self {
            Self::Run(line) => line.lines().next().unwrap_or_default().to_owned(),
            Self::Exec(argv) => argv.join(" "),
            Self::Claude(claude) => claude.summary(),
            Self::Fanout(fanout) => {
                format!(
                    "page {} of {} of the sub-tasks of {}",
                    fanout.page, fanout.pages, fanout.parent
                )
            }
        }
    }
}

/// Where the rest of a fan-out lies: in blobs named `<run>.<page>`, each with one task in JSON a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Fanout {
    /// Run that queued the tasks.
    pub run: Uuid,
    /// `<job>/<task>` that queued the tasks.
    pub parent: String,
    /// The page to queue next, from 1; page 0 was queued with the parent's record.
    pub page: u32,
    /// Pages in all.
    pub pages: u32,
}

/// Pages of one fan-out, twice as many as there can be: sub-tasks fill a page by their number or their bytes.
const PAGES_MAX: u32 = 2000;

impl Fanout {
    /// Names of the blobs with the pages that are still to be queued, the next one first.
    pub fn blobs(&self) -> impl Iterator<Item = String> + '_ {
        let end = self.pages.min(self.page.saturating_add(PAGES_MAX));
        (self.page..end).map(|page| format!("{}.{page}", self.run))
    }
}

impl Task {
    /// Names of the blobs with pages that the task is to queue.
    pub fn blobs(&self) -> Vec<String> {
        match &self.work {
            Work::Fanout(fanout) => fanout.blobs().collect(),
            Work::Run(_) | Work::Exec(_) | Work::Claude(_) => Vec::new(),
        }
    }
}

/// A task that another one waits for; written `task`, `job/task` or `{"task": …, "when": …}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "NeedText", into = "NeedText")]
pub struct Need {
    /// The other task's job; the own one when none.
    pub job: Option<JobName>,
    /// The other task.
    pub task: TaskId,
    /// How the other task must have ended.
    pub when: When,
}

/// How a needed task must have ended.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// It succeeded.
    #[default]
    Succeeded,
    /// It failed for good.
    Failed,
    /// It is over, however it ended.
    Done,
}

#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
enum NeedText {
    Short(String),
    Long(NeedLong),
}

#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct NeedLong {
    task: String,
    #[serde(default)]
    when: When,
}

impl FromStr for Need {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (job, task) = match text.split_once('/') {
            Some((job, task)) => (Some(job.parse()?), task),
            None => (None, text),
        };
        Ok(Self {
            job,
            task: task.parse()?,
            when: When::Succeeded,
        })
    }
}

impl TryFrom<NeedText> for Need {
    type Error = NameError;

    fn try_from(text: NeedText) -> Result<Self, NameError> {
        match text {
            NeedText::Short(text) => text.parse(),
            NeedText::Long(long) => Ok(Self {
                when: long.when,
                ..long.task.parse()?
            }),
        }
    }
}

impl From<Need> for NeedText {
    fn from(need: Need) -> Self {
        let task = need.to_string();
        match need.when {
            When::Succeeded => Self::Short(task),
            when => Self::Long(NeedLong { task, when }),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.job {
            Some(job) => write!(f, "{job}/{}", self.task),
            None => write!(f, "{}", self.task),
        }
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Need {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Need".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        NeedText::json_schema(generator)
    }
}

/// What happens after a failed attempt; what is absent comes from the job's spec, then from the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Attempts after the first; 3 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// Delay before the second attempt, doubled for each further one; 1s by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Span>,
    /// Longest delay; 5m by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_backoff: Option<Span>,
}

impl Retry {
    /// These wishes, completed by `defaults`.
    #[must_use]
    pub fn or(&self, defaults: &Self) -> Self {
        Self {
            max: self.max.or(defaults.max),
            backoff: self.backoff.or(defaults.backoff),
            max_backoff: self.max_backoff.or(defaults.max_backoff),
        }
    }

    /// Failed attempts after which the task fails for good.
    pub fn failures_max(&self) -> u32 {
        self.max.unwrap_or(RETRIES_DEFAULT).saturating_add(1)
    }

    /// The delay after the `failures`th failed attempt; `jitter` in 0..=255 takes off up to a quarter.
    pub fn delay(&self, failures: u32, jitter: u8) -> Duration {
        let first = self.backoff.map_or(BACKOFF_DEFAULT, |span| span.0);
        let most = self.max_backoff.map_or(BACKOFF_MAX_DEFAULT, |span| span.0);
        let factor = 2_u32.saturating_pow(failures.saturating_sub(1).min(31));
        let full = first.saturating_mul(factor).min(most);
        full.saturating_sub((full / 4).saturating_mul(u32::from(jitter)) / 255)
    }
}

/// A rule that a task breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskRule {
    /// The version is not known.
    #[error("`v` is {0}, but this version of Air-Executor knows only {VERSION}; update it")]
    Version(u8),
    /// No program.
    #[error("`exec` is empty; give the program and its arguments, such as [\"echo\", \"hi\"]")]
    EmptyExec,
    /// An empty line.
    #[error("`run` is empty; give a line for the shell, such as \"echo hi\"")]
    EmptyRun,
    /// A NUL byte, which no program can be given.
    #[error("`{0}` holds a NUL byte; take it out")]
    Nul(&'static str),
    /// An environment variable that cannot be set.
    #[error(
        "`env` has the name `{}`; a name is not empty, has no `=` and does not begin with AIR_",
        quote(.0)
    )]
    EnvName(String),
    /// Too many needs.
    #[error("`needs` has {0} entries, but {TASK_NEEDS_MAX} are the most")]
    Needs(usize),
    /// Too many labels.
    #[error("`labels` has {0} entries, but {LABELS_MAX} are the most")]
    Labels(usize),
    /// A task that needs itself.
    #[error("`needs` names the task itself (`{0}`); take it out")]
    NeedsItself(TaskId),
    /// A rule of work for an agent.
    #[error(transparent)]
    Claude(#[from] ClaudeRule),
    /// Resources that are no quantities.
    #[error(transparent)]
    Resources(#[from] ResourceRule),
}

/// Whether a user may set an environment variable of this name.
pub(crate) fn is_env_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !name.starts_with("AIR_")
}

impl Task {
    /// A task with nothing but its work.
    pub fn new(work: Work) -> Self {
        Self {
            v: VERSION,
            id: None,
            work,
            needs: Vec::new(),
            input: None,
            env: BTreeMap::new(),
            cwd: None,
            timeout: None,
            retry: None,
            backend: None,
            image: None,
            resources: None,
            not_before: None,
            job: None,
            labels: BTreeMap::new(),
            approval: None,
        }
    }

    /// The id of the task when it stands in the queue at `seq`.
    pub fn id_at(&self, seq: u64) -> TaskId {
        self.id.clone().unwrap_or_else(|| TaskId::of_sequence(seq))
    }

    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first rule that the task breaks.
    pub fn check(&self) -> Result<(), TaskRule> {
        if self.v != VERSION {
            return Err(TaskRule::Version(self.v));
        }
        match &self.work {
            Work::Run(line) if line.trim().is_empty() => return Err(TaskRule::EmptyRun),
            Work::Run(line) if line.contains('\0') => return Err(TaskRule::Nul("run")),
            Work::Exec(argv) if argv.first().is_none_or(String::is_empty) => {
                return Err(TaskRule::EmptyExec);
            }
            Work::Exec(argv) if argv.iter().any(|arg| arg.contains('\0')) => {
                return Err(TaskRule::Nul("exec"));
            }
            Work::Claude(claude) => claude.check()?,
            Work::Run(_) | Work::Exec(_) | Work::Fanout(_) => {}
        }
        if self.cwd.as_ref().is_some_and(|cwd| cwd.contains('\0')) {
            return Err(TaskRule::Nul("cwd"));
        }
        for (name, value) in &self.env {
            if !is_env_name(name) {
                return Err(TaskRule::EnvName(name.clone()));
            }
            if value.contains('\0') {
                return Err(TaskRule::Nul("env"));
            }
        }
        if let Some(resources) = &self.resources {
            resources.check()?;
        }
        if self.needs.len() > TASK_NEEDS_MAX {
            return Err(TaskRule::Needs(self.needs.len()));
        }
        if self.labels.len() > LABELS_MAX {
            return Err(TaskRule::Labels(self.labels.len()));
        }
        let itself = |need: &&Need| need.job.is_none() && Some(&need.task) == self.id.as_ref();
        match self.needs.iter().find(itself) {
            Some(need) => Err(TaskRule::NeedsItself(need.task.clone())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
