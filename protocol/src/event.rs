//! Life-cycle events on `air.events.<job>.<type>`, as CloudEvents 1.0 in JSON.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::names::{JobName, TaskId};
use crate::time::Time;

/// The type of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A manager claimed the job for a task.
    Claimed,
    /// A runner started a task.
    Started,
    /// A record was committed.
    Committed,
    /// The lease was given back.
    Released,
    /// A lease was judged dead and taken over.
    Lost,
    /// A lease that was taken over is settled.
    Recovered,
    /// A task is tried again.
    Retrying,
    /// A task waits for others.
    Blocked,
    /// The account of a job's next task has not enough left.
    OverBudget,
    /// A task was skipped.
    Skipped,
    /// A task waits for a person.
    Parked,
    /// A message is no valid task.
    Rejected,
    /// A job was cancelled.
    Cancelled,
    /// A job has no task left.
    Completed,
    /// A job stopped at a failed task.
    Failed,
    /// A manager started.
    ManagerUp,
    /// A manager stopped.
    ManagerDown,
}

impl Kind {
    /// Every type, in the order in which they happen.
    pub const ALL: [Self; 17] = [
        Self::Claimed,
        Self::Started,
        Self::Committed,
        Self::Released,
        Self::Lost,
        Self::Recovered,
        Self::Retrying,
        Self::Blocked,
        Self::OverBudget,
        Self::Skipped,
        Self::Parked,
        Self::Rejected,
        Self::Cancelled,
        Self::Completed,
        Self::Failed,
        Self::ManagerUp,
        Self::ManagerDown,
    ];

    /// The word in the subject and in the type.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Started => "started",
            Self::Committed => "committed",
            Self::Released => "released",
            Self::Lost => "lost",
            Self::Recovered => "recovered",
            Self::Retrying => "retrying",
            Self::Blocked => "blocked",
            Self::OverBudget => "over-budget",
            Self::Skipped => "skipped",
            Self::Parked => "parked",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::ManagerUp => "manager-up",
            Self::ManagerDown => "manager-down",
        }
    }
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Data {
    /// The job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobName>,
    /// The task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// The attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Uuid>,
    /// Revision of the claim in the job's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
    /// The manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manager: Option<String>,
    /// Status of the committed record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Stream sequence of the committed record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<u64>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A CloudEvent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Event {
    /// Version of CloudEvents.
    pub specversion: String,
    /// `<job>/<task>/<attempt>/<type>`, or a UUID where there is no task.
    pub id: String,
    /// Always `air-executor`.
    pub source: String,
    /// `air.<type>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `<job>/<task>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// When it happened.
    pub time: Time,
    /// Always `application/json`.
    pub datacontenttype: String,
    /// What it is about.
    pub data: Data,
}

impl Event {
    /// The type; none for one that this version does not know.
    pub fn known_kind(&self) -> Option<Kind> {
        let word = self.kind.strip_prefix("air.")?;
        Kind::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// An event of `kind` at `time`; `fallback` is its id where there is no task.
    pub fn new(kind: Kind, data: Data, time: Time, fallback: Uuid) -> Self {
        let subject = match (&data.job, &data.task) {
            (Some(job), Some(task)) => Some(format!("{job}/{task}")),
            (Some(job), None) => Some(job.to_string()),
            (None, _) => None,
        };
        let id = match (&data.job, &data.task, data.attempt) {
            (Some(job), Some(task), Some(attempt)) => {
                format!("{job}/{task}/{attempt}/{}", kind.as_str())
            }
            _ => fallback.to_string(),
        };
        Self {
            specversion: "1.0".into(),
            id,
            source: "air-executor".into(),
            kind: format!("air.{}", kind.as_str()),
            subject,
            time,
            datacontenttype: "application/json".into(),
            data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_known_by_its_word() {
        for kind in Kind::ALL {
            let event = Event::new(kind, Data::default(), Time::default(), Uuid::nil());
            assert_eq!(event.known_kind(), Some(kind));
            assert_eq!(event.kind, format!("air.{}", kind.as_str()));
        }
        let mut later = Event::new(Kind::Lost, Data::default(), Time::default(), Uuid::nil());
        later.kind = "air.something-new".into();
        assert_eq!(later.known_kind(), None);
        later.kind = "lost".into();
        assert_eq!(later.known_kind(), None, "somebody else's");
    }
}
