//! The lease: who works on a job, on which task, and how far.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::names::{JobName, TaskId};
use crate::time::{Span, Time};

/// The right to work on a job, held by one runner (or one manager while it settles).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Lease {
    /// Id of the runner; fresh for each claim.
    pub runner: Uuid,
    /// Id of the manager that claimed.
    pub manager: String,
    /// Backend that starts the runner.
    pub backend: String,
    /// Processes that the manager can see and look into: machine, namespaces, user and group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realm: Option<String>,
    /// The account with which something is reserved for the runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<JobName>,
    /// When the manager claimed.
    pub claimed: Time,
    /// When the lease was last renewed.
    pub renewed: Time,
    /// Time without renewal after which the lease may be taken over.
    pub ttl: Span,
    /// Time from claim to start after which a `starting` lease may be taken over.
    pub start_within: Span,
    /// How far the work is.
    #[serde(flatten)]
    pub phase: Phase,
}

/// How far the work under a lease is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "phase", rename_all = "lowercase")]
pub enum Phase {
    /// Claimed; the runner has not started, and nothing has run.
    Starting {
        /// The attempt.
        target: Target,
    },
    /// The runner works.
    Running(Running),
    /// A user wants the runner to stop.
    Stopping {
        /// What it worked on.
        #[serde(flatten)]
        running: Running,
        /// What the job becomes afterwards.
        then: Ending,
    },
    /// A manager decides the fate of tasks without running them.
    Settling {
        /// What it decided.
        decisions: Vec<Decision>,
    },
    /// The holder was judged dead; a manager settles its work.
    Recovering {
        /// The phase that was taken over.
        from: Box<Phase>,
        /// The manager that took over.
        by: String,
    },
}

/// Work of a runner that has started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Running {
    /// The attempt.
    pub target: Target,
    /// Revision of the claim.
    pub fence: u64,
    /// When the runner started.
    pub started: Time,
    /// Host of the runner.
    pub host: String,
}

/// One attempt of one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Target {
    /// The task.
    pub task: TaskId,
    /// Stream sequence of its message.
    pub seq: u64,
    /// Number of the attempt.
    pub attempt: u32,
    /// Stream sequence of the task's last record when it was picked, 0 for none. The attempt is
    /// over iff the last record is another one.
    pub expected: u64,
}

/// What a job becomes when its runner has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// `cancelling`.
    Cancel,
    /// `removing`.
    Remove,
}

/// The fate of a task that is decided without running it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Decision {
    /// The attempt that is decided.
    pub target: Target,
    /// What becomes of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What becomes of a task that does not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Verdict {
    /// A need can no longer be met.
    Skip {
        /// Which.
        reason: String,
    },
    /// The message is no valid task, or the task waits for itself in a circle.
    Fail {
        /// What is wrong, and how to mend it.
        reason: String,
    },
    /// The runner could not be started too often: a failed attempt.
    Unstartable {
        /// What the backend said.
        reason: String,
    },
    /// A person must approve the task before it runs.
    Park {
        /// Why.
        reason: String,
    },
    /// The task is not due yet.
    Move {
        /// When it is.
        until: Time,
    },
}

impl Verdict {
    /// Why, as people read it.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Skip { reason }
            | Self::Fail { reason }
            | Self::Unstartable { reason }
            | Self::Park { reason } => Some(reason),
            Self::Move { .. } => None,
        }
    }
}

impl Phase {
    /// The attempt that a runner works on, or worked on; none while a manager settles.
    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::Starting { target } => Some(target),
            Self::Running(running) | Self::Stopping { running, .. } => Some(&running.target),
            Self::Settling { .. } => None,
            Self::Recovering { from, .. } => from.target(),
        }
    }

    /// This phase once a user wants the holder to stop; none where the lease is simply dropped,
    /// since nothing has run.
    #[must_use]
    pub fn stopping(&self, then: Ending) -> Option<Self> {
        match self {
            Self::Starting { .. } | Self::Settling { .. } => None,
            Self::Running(running) => Some(Self::Stopping {
                running: running.clone(),
                then,
            }),
            Self::Stopping { running, then: old } => Some(Self::Stopping {
                running: running.clone(),
                then: if *old == Ending::Remove { *old } else { then },
            }),
            Self::Recovering { from, by } => Some(Self::Recovering {
                from: Box::new(from.stopping(then)?),
                by: by.clone(),
            }),
        }
    }

    /// Whether the holder may be about to commit a record: all but one that never started.
    pub fn may_commit(&self) -> bool {
        match self {
            Self::Starting { .. } => false,
            Self::Running(_) | Self::Stopping { .. } | Self::Settling { .. } => true,
            Self::Recovering { from, .. } => from.may_commit(),
        }
    }

    /// Whether a task is settled whose runner could not be started: those starts are paid for.
    pub fn gave_up_starting(&self) -> bool {
        let paid = |one: &Decision| matches!(one.verdict, Verdict::Unstartable { .. });
        match self {
            Self::Settling { decisions } => decisions.iter().any(paid),
            Self::Starting { .. }
            | Self::Running(_)
            | Self::Stopping { .. }
            | Self::Recovering { .. } => false,
        }
    }

    /// The word that stands in JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Starting { .. } => "starting",
            Self::Running(_) => "running",
            Self::Stopping { .. } => "stopping",
            Self::Settling { .. } => "settling",
            Self::Recovering { .. } => "recovering",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target {
            task: "t".parse().unwrap(),
            seq: 5,
            attempt: 2,
            expected: 3,
        }
    }

    fn running() -> Running {
        Running {
            target: target(),
            fence: 7,
            started: Time::default(),
            host: "h".into(),
        }
    }

    fn settling(verdict: Verdict) -> Phase {
        let target = target();
        let decisions = vec![Decision { target, verdict }];
        Phase::Settling { decisions }
    }

    fn taken(from: Phase) -> Phase {
        Phase::Recovering {
            from: Box::new(from),
            by: "m".into(),
        }
    }

    fn verdicts() -> [Verdict; 5] {
        let reason = || "why".to_owned();
        let until = Time::default();
        [
            Verdict::Skip { reason: reason() },
            Verdict::Fail { reason: reason() },
            Verdict::Move { until },
            Verdict::Unstartable { reason: reason() },
            Verdict::Park { reason: reason() },
        ]
    }

    #[test]
    fn whoever_has_started_may_commit() {
        let target = target();
        let starting = Phase::Starting { target };
        let stopping = Phase::Running(running()).stopping(Ending::Cancel).unwrap();
        assert!(!starting.may_commit() && !taken(starting).may_commit());
        for phase in [
            Phase::Running(running()),
            stopping,
            settling(verdicts()[0].clone()),
        ] {
            assert!(phase.may_commit(), "{phase:?}");
            assert!(taken(phase).may_commit());
        }
    }

    #[test]
    fn a_lease_is_on_the_attempt_of_its_runner() {
        let starting = Phase::Starting { target: target() };
        for phase in [starting, Phase::Running(running())] {
            assert_eq!(phase.target(), Some(&target()));
            assert_eq!(taken(phase).target(), Some(&target()));
        }
        assert_eq!(settling(verdicts()[0].clone()).target(), None);
    }

    #[test]
    fn starts_are_paid_for_by_the_verdict_that_says_so() {
        let paid = verdicts().map(|verdict| settling(verdict).gave_up_starting());
        assert_eq!(paid, [false, false, false, true, false]);
        assert!(!Phase::Running(running()).gave_up_starting());
        let reasons = verdicts().map(|verdict| verdict.reason().map(str::to_owned));
        let why = || Some("why".to_owned());
        assert_eq!(reasons, [why(), why(), None, why(), why()]);
    }
}
