//! The budget: what a job, with all that its tasks queue, may take at most.

use serde::{Deserialize, Serialize};

use crate::cost::Usd;
use crate::time::Span;

/// Limits of a job and of all that descends from its tasks, in whatever job; what is absent is unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Money of agents, in US dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd: Option<Usd>,
    /// Tokens of agents, of every kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Turns of agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns: Option<u64>,
    /// Tasks, with sub-tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u64>,
    /// Generations of sub-tasks below the job's own tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<u32>,
    /// Time from the first claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall: Option<Span>,
}
