//! What waits for a person: rules by which tasks need one, and what was asked and answered.

use serde::{Deserialize, Serialize};

use crate::cost::Usd;
use crate::time::Time;

/// A rule of a job by which a task waits for a person before it runs. Exactly one of its fields is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum ApprovalRule {
    /// Tasks for an agent that may cost more than this, in US dollars, or that have no limit.
    AboveUsd(Usd),
    /// Tasks whose `cwd`, or whose workspace's `repo`, matches this pattern (`*` for any text).
    Path(String),
    /// Tasks whose `run` line or `exec` words match this pattern (`*` for any text).
    Command(String),
}

/// What a parked task waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "for", rename_all = "lowercase")]
pub enum Waits {
    /// That a person approves it (`airx approve`, `airx reject`).
    Approval {
        /// Why it needs one.
        reason: String,
    },
    /// That a person answers (`airx answer`).
    Answer {
        /// What the agent asks.
        question: String,
    },
}

/// What a person said to a parked task; kept in all its later records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reply {
    /// What the agent had asked; none where the task was approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// The answer, or the note that came with the approval.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// When it was said.
    pub at: Time,
}

impl Reply {
    /// Whether it approves the task.
    pub fn approves(&self) -> bool {
        self.question.is_none()
    }
}
