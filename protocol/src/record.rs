//! The record: what is committed to `air.results.<job>.<task>`, once for each attempt.
//!
//! The last record on a task's subject is the truth about the task.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::VERSION;
use crate::agent::{AgentRun, session_blob, workspace_blob};
use crate::approval::{Reply, Waits};
use crate::budget::Leash;
use crate::cost::Cost;
use crate::limits::ERROR_CHARS_MAX;
use crate::names::{JobName, TaskId};
use crate::task::{Task, When, Work};
use crate::time::Time;

/// How an attempt, or the task as a whole, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Final: the task did its work.
    Succeeded,
    /// Final: the task failed and is not tried again.
    Failed,
    /// Final: a user cancelled the task.
    Cancelled,
    /// Final: the task never ran, because a task that it needs can no longer end as needed.
    Skipped,
    /// Open: the next attempt is queued or scheduled.
    Retrying,
    /// Open: a user asked for another try, and it is queued.
    Reset,
    /// Open: the task waits for a person.
    Parked,
}

impl Status {
    /// Every status, in the order in which tables show them.
    pub const ALL: [Self; 7] = [
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Skipped,
        Self::Retrying,
        Self::Reset,
        Self::Parked,
    ];

    /// Whether the task is over.
    pub fn is_final(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Skipped => true,
            Self::Retrying | Self::Reset | Self::Parked => false,
        }
    }

    /// Whether a message with the next attempt may follow.
    pub fn has_next(self) -> bool {
        matches!(self, Self::Retrying | Self::Reset)
    }

    /// Whether a need is met by this status; none while it may still change.
    pub fn meets(self, when: When) -> Option<bool> {
        let met = match when {
            When::Succeeded => self == Self::Succeeded,
            When::Failed => self == Self::Failed,
            When::Done => true,
        };
        self.is_final().then_some(met)
    }

    /// The word that stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
            Self::Retrying => "retrying",
            Self::Reset => "reset",
            Self::Parked => "parked",
        }
    }
}

/// What became of one attempt of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Record {
    /// Version of the record.
    pub v: u8,
    /// The task.
    pub task: TaskId,
    /// How it ended.
    pub status: Status,
    /// Number of the attempt; attempts are numbered on for ever, from 1.
    pub attempt: u32,
    /// Status of the task's record before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Status>,
    /// Stream sequence of the task's record before this one, 0 for none.
    pub after: u64,
    /// Failed attempts so far, since the last reset.
    #[serde(default)]
    pub failures: u32,
    /// Lost runners so far, since the last reset.
    #[serde(default)]
    pub losses: u32,
    /// Stream sequence of the message that the attempt consumed; none for a record by a user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The runner's id; none for a record by a user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Uuid>,
    /// The fence: revision of the claim in the job's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
    /// Stream sequence of the last record that a release had named when this run was claimed: what
    /// stands up to there was over before. It proves that runs do not overlap, without any clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<u64>,
    /// Committed on behalf of a runner that was lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
    /// Exit code of the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// Number of the signal that ended the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// What went wrong, and how to mend it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The task's result (`AIR_OUTPUT`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Name of the blob that holds the result, when it is too large to stand here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_blob: Option<String>,
    /// The last 4 KiB of what the program printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<String>,
    /// When the consumed message was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<Time>,
    /// When a manager claimed the job for this attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<Time>,
    /// When the program started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// When the attempt ended.
    pub ended: Time,
    /// When the next attempt is due (status `retrying`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Time>,
    /// CPU time of the program and its children, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// Largest resident set of the program or one of its children, in KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rss_kb: Option<u64>,
    /// What an agent's work took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// What an agent's attempt was, and what it left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentRun>,
    /// What the task waits for (status `parked`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<Waits>,
    /// What people said to the task so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replies: Vec<Reply>,
    /// Sub-tasks that the attempt queued, with those that wait in a fan-out.
    #[serde(default)]
    pub subtasks: u64,
    /// Other jobs into which the attempt queued tasks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<JobName>,
    /// Host of the runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Backend that started the runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// `<job>/<task>` that queued the task (`Air-Parent`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The account that pays for the task: its root job (`Air-Budget`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<JobName>,
    /// Generations of sub-tasks down to the task (`Air-Depth`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub depth: u32,
    /// Trace context of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The task as it was, with its id; none where the message was no valid task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Task>,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What liveness and expectations need to know of a task's last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Last {
    /// Stream sequence of the record.
    pub seq: u64,
    /// Its status.
    pub status: Status,
    /// Its attempt.
    pub attempt: u32,
}

impl Record {
    /// A record that says only how an attempt ended.
    pub fn new(task: TaskId, status: Status, attempt: u32, ended: Time) -> Self {
        Self {
            v: VERSION,
            task,
            status,
            attempt,
            previous: None,
            after: 0,
            failures: 0,
            losses: 0,
            seq: None,
            run: None,
            fence: None,
            released: None,
            lost: false,
            exit: None,
            signal: None,
            error: None,
            output: None,
            output_blob: None,
            tail: None,
            queued: None,
            claimed: None,
            started: None,
            ended,
            retry_at: None,
            cpu_ms: None,
            max_rss_kb: None,
            cost: None,
            agent: None,
            waits: None,
            replies: Vec::new(),
            subtasks: 0,
            jobs: Vec::new(),
            host: None,
            backend: None,
            parent: None,
            budget: None,
            depth: 0,
            traceparent: None,
            spec: None,
        }
    }

    /// The same record, said to follow another one of its task.
    #[must_use]
    pub fn follows(mut self, previous: Option<Status>, after: u64) -> Self {
        self.previous = previous;
        self.after = after;
        self
    }

    /// Whether a person has approved the task.
    pub fn is_approved(&self) -> bool {
        self.replies.iter().any(Reply::approves)
    }

    /// Whether the task is the system's own, which queues the rest of a family.
    pub fn is_fanout(&self) -> bool {
        let task = self.spec.as_ref();
        task.is_some_and(|task| matches!(task.work, Work::Fanout(_)))
    }

    /// Says which account pays for the task, and how deep it stands.
    pub fn set_leash(&mut self, leash: Leash) {
        self.budget = leash.budget;
        self.depth = leash.depth;
    }

    /// Names of the blobs that go when this record goes.
    pub fn blobs(&self) -> impl Iterator<Item = String> {
        let agent = self.agent.as_ref();
        let transcript = agent.and_then(|agent| agent.transcript.as_ref());
        self.output_blob.iter().chain(transcript).cloned()
    }

    /// Names of the blobs with the session and the working tree, which go when the last record of the task goes. A
    /// runner that was lost may have saved some that no record names.
    pub fn sessions(&self, job: &JobName) -> Vec<String> {
        let Some(Work::Claude(claude)) = self.spec.as_ref().map(|task| &task.work) else {
            return Vec::new();
        };
        let tree = claude.workspace.is_some();
        let tree = tree.then(|| workspace_blob(job, &self.task));
        [session_blob(job, &self.task)]
            .into_iter()
            .chain(tree)
            .collect()
    }

    /// What liveness and expectations need to know of this record, stored at `seq`.
    pub fn last(&self, seq: u64) -> Last {
        Last {
            seq,
            status: self.status,
            attempt: self.attempt,
        }
    }
}

/// A reason as records and leases hold it: not longer than [`ERROR_CHARS_MAX`].
pub fn error_text(reason: &str) -> String {
    match reason.char_indices().nth(ERROR_CHARS_MAX) {
        Some((end, _)) => reason[..end].to_owned(),
        None => reason.to_owned(),
    }
}

/// The number of the attempt after this one. The greatest has none: a message of that number is not live again.
pub fn next_attempt(attempt: u32) -> u32 {
    attempt.saturating_add(1)
}

/// Whether a message with this `attempt` is live: it is the next attempt of a task that waits for one.
pub fn is_live(attempt: u32, last: Option<Last>) -> bool {
    match last {
        None => attempt == 1,
        Some(last) => last.status.has_next() && Some(attempt) == last.attempt.checked_add(1),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::claude::{Claude, Workspace};

    /// A record with nothing but what the fold and liveness look at.
    pub(crate) fn record(
        task: &str,
        status: Status,
        attempt: u32,
        previous: Option<Status>,
        after: u64,
    ) -> Record {
        Record::new(task.parse().unwrap(), status, attempt, Time::default())
            .follows(previous, after)
    }

    #[test]
    fn only_the_next_attempt_of_an_open_task_is_live() {
        assert!(is_live(1, None));
        assert!(!is_live(2, None));
        for status in Status::ALL {
            let last = Some(Last {
                seq: 9,
                status,
                attempt: 3,
            });
            let open = matches!(status, Status::Retrying | Status::Reset);
            assert_eq!(is_live(4, last), open, "{status:?}");
            assert!(!is_live(3, last) && !is_live(5, last) && !is_live(1, last));
        }
    }

    #[test]
    fn nothing_follows_the_last_attempt_that_can_be_counted() {
        let last = Last {
            seq: 9,
            status: Status::Retrying,
            attempt: u32::MAX,
        };
        assert!(!is_live(0, Some(last)) && !is_live(u32::MAX, Some(last)));
    }

    #[test]
    fn a_need_is_judged_by_final_records_only() {
        assert_eq!(Status::Succeeded.meets(When::Succeeded), Some(true));
        assert_eq!(Status::Failed.meets(When::Succeeded), Some(false));
        assert_eq!(Status::Failed.meets(When::Failed), Some(true));
        assert_eq!(Status::Skipped.meets(When::Done), Some(true));
        for open in [Status::Retrying, Status::Reset, Status::Parked] {
            assert_eq!(open.meets(When::Done), None);
        }
    }

    #[test]
    fn a_record_says_who_pays_for_its_task_and_how_deep_it_stands() {
        let mut paid = record("t", Status::Succeeded, 1, None, 0);
        let json = |record: &Record| serde_json::to_value(record).unwrap();
        assert_eq!(json(&paid).get("depth"), None);
        paid.set_leash(Leash {
            budget: Some("root".parse().unwrap()),
            depth: 2,
        });
        assert_eq!(json(&paid)["budget"], "root");
        assert_eq!(json(&paid)["depth"], 2);
    }

    #[test]
    fn blobs_go_with_their_record_and_sessions_with_the_last_one() {
        let job = "j".parse().unwrap();
        let mut of_agent = record("t", Status::Failed, 1, None, 0);
        assert_eq!(of_agent.blobs().count(), 0);
        of_agent.output_blob = Some("out".into());
        of_agent.agent = Some(AgentRun {
            transcript: Some("raw".into()),
            saved: Some("stays".into()),
            ..AgentRun::default()
        });
        assert_eq!(of_agent.blobs().collect::<Vec<_>>(), ["out", "raw"]);
        of_agent.spec = Some(Task::new(Work::Run("true".into())));
        assert_eq!(of_agent.sessions(&job), [""; 0]);
        let mut claude = Claude::new("x");
        let of = |claude: &Claude| Some(Task::new(Work::Claude(Box::new(claude.clone()))));
        of_agent.spec = of(&claude);
        assert_eq!(of_agent.sessions(&job), ["j.t.session"]);
        claude.workspace = Some(Workspace {
            repo: "/r".into(),
            reference: None,
            from: None,
        });
        of_agent.spec = of(&claude);
        let both = ["j.t.session", "j.t.workspace"];
        assert_eq!(of_agent.sessions(&job), both);
    }

    #[test]
    fn an_error_is_cut_at_a_character() {
        let long = "\u{fc}".repeat(ERROR_CHARS_MAX + 5);
        assert_eq!(error_text(&long).chars().count(), ERROR_CHARS_MAX);
    }
}
