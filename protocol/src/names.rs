//! Names of jobs and tasks, and of every stream, subject, bucket and key built from them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::{JOB_NAME_CHARS_MAX, TASK_ID_CHARS_MAX};
use crate::quote::quote;

/// A text cannot be a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a job's name.
    #[error(
        "`{}` is no job name; use 1 to {JOB_NAME_CHARS_MAX} of the characters A-Z a-z 0-9 _ -",
        quote(.0)
    )]
    Job(String),
    /// Not a task's id.
    #[error(
        "`{}` is no task id; use 1 to {TASK_ID_CHARS_MAX} of the characters A-Z a-z 0-9 _ -, the first a letter or digit",
        quote(.0)
    )]
    Task(String),
    /// Not a prefix.
    #[error("`{}` is no prefix; use 1 to 32 of the characters a-z 0-9 -, the first a letter", quote(.0))]
    Prefix(String),
}

fn is_word(text: &str, chars_max: usize) -> bool {
    !text.is_empty()
        && text.len() <= chars_max
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $pattern:literal, $check:expr, $error:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[cfg_attr(feature = "schema", schemars(extend("pattern" = $pattern)))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(#[cfg_attr(feature = "schema", schemars(with = "String"))] Box<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                let check: fn(&str) -> bool = $check;
                if check(&text) { Ok(Self(text.into())) } else { Err($error(text)) }
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name!(
    /// The name of a job: `[A-Za-z0-9_-]{1,64}`.
    JobName,
    "^[A-Za-z0-9_-]{1,64}$",
    |text| is_word(text, JOB_NAME_CHARS_MAX),
    NameError::Job
);

name!(
    /// The id of a task: `[A-Za-z0-9][A-Za-z0-9_-]{0,63}`, or `_<sequence>` given by the system.
    TaskId,
    "^([A-Za-z0-9][A-Za-z0-9_-]{0,63}|_[1-9][0-9]*)$",
    |text| is_word(text, TASK_ID_CHARS_MAX)
        && (!text.starts_with(['_', '-']) || system_sequence(text).is_some()),
    NameError::Task
);

fn system_sequence(text: &str) -> Option<u64> {
    let digits = text.strip_prefix('_')?;
    let canonical = !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    if canonical { digits.parse().ok() } else { None }
}

impl TaskId {
    /// The id of a message that names none: `_` and its stream sequence.
    pub fn of_sequence(seq: u64) -> Self {
        Self(format!("_{seq}").into())
    }

    /// The stream sequence in an id that the system gave; none for an id that a user chose.
    pub fn sequence(&self) -> Option<u64> {
        system_sequence(&self.0)
    }
}

/// The names of one installation: all begin with its prefix, `air` unless told otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    prefix: String,
    upper: String,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            prefix: "air".into(),
            upper: "AIR".into(),
        }
    }
}

impl FromStr for Names {
    type Err = NameError;

    fn from_str(prefix: &str) -> Result<Self, NameError> {
        let fine = prefix.len() <= 32
            && prefix.starts_with(|c: char| c.is_ascii_lowercase())
            && prefix
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !fine {
            return Err(NameError::Prefix(prefix.to_owned()));
        }
        let upper = prefix.to_ascii_uppercase().replace('-', "_");
        Ok(Self {
            prefix: prefix.to_owned(),
            upper,
        })
    }
}

impl Names {
    /// The prefix itself.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The stream of tasks, records and schedules.
    pub fn stream(&self) -> String {
        self.upper.clone()
    }

    /// The stream of logs.
    pub fn logs_stream(&self) -> String {
        format!("{}_LOGS", self.upper)
    }

    /// The stream of events.
    pub fn events_stream(&self) -> String {
        format!("{}_EVENTS", self.upper)
    }

    /// The bucket of job states.
    pub fn jobs_bucket(&self) -> String {
        format!("{}-jobs", self.prefix)
    }

    /// The bucket of specs.
    pub fn specs_bucket(&self) -> String {
        format!("{}-specs", self.prefix)
    }

    /// The bucket of managers' heartbeats.
    pub fn managers_bucket(&self) -> String {
        format!("{}-managers", self.prefix)
    }

    /// The bucket of accounts, and of keys whose limit is reached.
    pub fn budgets_bucket(&self) -> String {
        format!("{}-budgets", self.prefix)
    }

    /// The object store of large inputs, outputs and fan-outs.
    pub fn blobs_bucket(&self) -> String {
        format!("{}-blobs", self.prefix)
    }

    /// The subject to which tasks of a job are published.
    pub fn tasks(&self, job: &JobName) -> String {
        format!("{}.tasks.{job}", self.prefix)
    }

    /// The subjects of all tasks.
    pub fn all_tasks(&self) -> String {
        format!("{}.tasks.*", self.prefix)
    }

    /// The subject of a task's records.
    pub fn results(&self, job: &JobName, task: &TaskId) -> String {
        format!("{}.results.{job}.{task}", self.prefix)
    }

    /// The subjects of all records of a job.
    pub fn job_results(&self, job: &JobName) -> String {
        format!("{}.results.{job}.*", self.prefix)
    }

    /// The subjects of all records.
    pub fn all_results(&self) -> String {
        format!("{}.results.*.*", self.prefix)
    }

    /// The subject of a task's schedule.
    pub fn schedule(&self, job: &JobName, task: &TaskId) -> String {
        format!("{}.schedules.{job}.{task}", self.prefix)
    }

    /// The subjects of all schedules of a job.
    pub fn job_schedules(&self, job: &JobName) -> String {
        format!("{}.schedules.{job}.*", self.prefix)
    }

    /// The subjects of all schedules.
    pub fn all_schedules(&self) -> String {
        format!("{}.schedules.*.*", self.prefix)
    }

    /// The subject of a task's log.
    pub fn logs(&self, job: &JobName, task: &TaskId) -> String {
        format!("{}.logs.{job}.{task}", self.prefix)
    }

    /// The subjects of all logs of a job.
    pub fn job_logs(&self, job: &JobName) -> String {
        format!("{}.logs.{job}.*", self.prefix)
    }

    /// The subjects of all logs.
    pub fn all_logs(&self) -> String {
        format!("{}.logs.*.*", self.prefix)
    }

    /// The subject of one type of a job's events; events of managers go under the job `_`.
    pub fn events(&self, job: Option<&JobName>, kind: &str) -> String {
        let job = job.map_or("_", JobName::as_str);
        format!("{}.events.{job}.{kind}", self.prefix)
    }

    /// The subjects of all events of a job.
    pub fn job_events(&self, job: &JobName) -> String {
        format!("{}.events.{job}.*", self.prefix)
    }

    /// The subjects of all events.
    pub fn all_events(&self) -> String {
        format!("{}.events.*.*", self.prefix)
    }

    /// The core-NATS subject that makes a job's runner, or another manager, look at once.
    pub fn signals(&self, job: &JobName) -> String {
        format!("{}.signals.{job}", self.prefix)
    }

    /// The subjects of all signals.
    pub fn all_signals(&self) -> String {
        format!("{}.signals.*", self.prefix)
    }

    /// The job's part of a subject such as `air.tasks.<job>` or `air.results.<job>.<task>`,
    /// which need not be a valid name.
    pub fn job_token<'a>(&self, subject: &'a str) -> Option<&'a str> {
        let rest = subject
            .strip_prefix(self.prefix.as_str())?
            .strip_prefix('.')?;
        rest.split('.').nth(1)
    }

    /// The last part of a subject such as `air.results.<job>.<task>`.
    pub fn task_token<'a>(&self, subject: &'a str) -> Option<&'a str> {
        let rest = subject
            .strip_prefix(self.prefix.as_str())?
            .strip_prefix('.')?;
        rest.split('.').nth(2)
    }
}

/// Headers that the protocol gives a meaning.
pub mod headers {
    /// Codec of the payload: `application/json` (also when absent) or `application/msgpack`.
    pub const CONTENT_TYPE: &str = "Content-Type";
    /// Number of the attempt that a task message is for; absent = 1.
    pub const ATTEMPT: &str = "Air-Attempt";
    /// `<job>/<task>` that queued this one.
    pub const PARENT: &str = "Air-Parent";
    /// The account that pays for a task: the name of its root job.
    pub const BUDGET: &str = "Air-Budget";
    /// Generations of sub-tasks down to a task; absent = 0.
    pub const DEPTH: &str = "Air-Depth";
    /// The run that printed a chunk of log.
    pub const RUNNER: &str = "Air-Runner";
    /// W3C trace context.
    pub const TRACEPARENT: &str = "traceparent";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_names() {
        for good in ["a", "A-b_9", "-", &"x".repeat(64)] {
            assert!(good.parse::<JobName>().is_ok(), "{good}");
        }
        for bad in ["", "a.b", "a b", "ü", "a>", "*", &"x".repeat(65)] {
            assert!(bad.parse::<JobName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn task_ids() {
        for good in ["a", "0", "a-b_c", "_7", "_18446744073709551615"] {
            assert!(good.parse::<TaskId>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "_",
            "_07",
            "_x",
            "-a",
            "_cron_x",
            "a/b",
            "_18446744073709551616",
        ] {
            assert!(bad.parse::<TaskId>().is_err(), "{bad}");
        }
        assert_eq!(TaskId::of_sequence(7).sequence(), Some(7));
    }

    #[test]
    fn subjects_can_be_taken_apart() {
        let names: Names = "my-air".parse().unwrap();
        let (job, task) = ("j".parse().unwrap(), "t".parse().unwrap());
        assert_eq!(names.results(&job, &task), "my-air.results.j.t");
        assert_eq!(names.job_token("my-air.results.j.t"), Some("j"));
        assert_eq!(names.task_token("my-air.results.j.t"), Some("t"));
        assert_eq!(names.job_token("air.results.j.t"), None);
        assert_eq!(names.stream(), "MY_AIR");
    }

    #[test]
    fn every_name_is_as_clients_know_it() {
        let names = Names::default();
        let (job, task) = ("j".parse().unwrap(), "t".parse().unwrap());
        assert_eq!((names.prefix(), names.stream()), ("air", "AIR".to_owned()));
        assert_eq!(names.logs_stream(), "AIR_LOGS");
        assert_eq!(names.events_stream(), "AIR_EVENTS");
        assert_eq!(names.jobs_bucket(), "air-jobs");
        assert_eq!(names.specs_bucket(), "air-specs");
        assert_eq!(names.managers_bucket(), "air-managers");
        assert_eq!(names.budgets_bucket(), "air-budgets");
        assert_eq!(names.blobs_bucket(), "air-blobs");
        assert_eq!(names.tasks(&job), "air.tasks.j");
        assert_eq!(names.all_tasks(), "air.tasks.*");
        assert_eq!(names.results(&job, &task), "air.results.j.t");
        assert_eq!(names.job_results(&job), "air.results.j.*");
        assert_eq!(names.all_results(), "air.results.*.*");
        assert_eq!(names.schedule(&job, &task), "air.schedules.j.t");
        assert_eq!(names.job_schedules(&job), "air.schedules.j.*");
        assert_eq!(names.all_schedules(), "air.schedules.*.*");
        assert_eq!(names.logs(&job, &task), "air.logs.j.t");
        assert_eq!(names.job_logs(&job), "air.logs.j.*");
        assert_eq!(names.all_logs(), "air.logs.*.*");
        assert_eq!(names.events(Some(&job), "lost"), "air.events.j.lost");
        assert_eq!(names.events(None, "manager-up"), "air.events._.manager-up");
        assert_eq!(names.job_events(&job), "air.events.j.*");
        assert_eq!(names.all_events(), "air.events.*.*");
        assert_eq!(names.signals(&job), "air.signals.j");
        assert_eq!(names.all_signals(), "air.signals.*");
    }

    #[test]
    fn a_prefix_is_a_short_word_of_small_letters() {
        for good in ["a", "a1", "a-b", &"x".repeat(32)] {
            assert!(good.parse::<Names>().is_ok(), "{good}");
        }
        for bad in ["", "1a", "-a", "A", "a_b", "a.b", "aB", &"x".repeat(33)] {
            assert!(bad.parse::<Names>().is_err(), "{bad}");
        }
    }
}
