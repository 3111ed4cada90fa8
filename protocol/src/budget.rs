//! The budget: what a job, with all that its tasks queue, may take at most.
//!
//! A job whose spec has a [`Budget`] is the root of an [`Account`], under its name in the bucket `air-budgets`. Its
//! tasks and all that descends from them, in whatever job, carry the account's name and their depth ([`Leash`]).
//! Whoever claims such a task reserves from the account before; whoever ends it gives back what is left.

mod account;
mod leash;

pub use account::{Account, Limits, Refusal, Reservation, Spent, Taken, Wants};
pub use leash::{KeyLimit, Leash};

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

impl Budget {
    /// Whether nothing is limited.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// The sum of two budgets, but for the depth, which stays; what neither limits stays unlimited.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        fn sum<T>(a: Option<T>, b: Option<T>, add: impl Fn(T, T) -> T) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(add(a, b)),
                (one, None) | (None, one) => one,
            }
        }
        Self {
            usd: sum(self.usd, other.usd, Usd::plus),
            tokens: sum(self.tokens, other.tokens, u64::saturating_add),
            turns: sum(self.turns, other.turns, u64::saturating_add),
            tasks: sum(self.tasks, other.tasks, u64::saturating_add),
            depth: self.depth,
            wall: sum(self.wall, other.wall, |a, b| Span(a.0.saturating_add(b.0))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn budgets_add_up_but_for_the_depth() {
        let some = Budget {
            usd: Some(Usd::from_micros(2)),
            tokens: Some(3),
            depth: Some(4),
            wall: Some(Span(Duration::from_secs(5))),
            ..Budget::default()
        };
        assert!(Budget::default().is_nothing() && !some.is_nothing());
        let sum = some.plus(&some);
        assert_eq!((sum.usd, sum.tokens), (Some(Usd::from_micros(4)), Some(6)));
        assert_eq!((sum.turns, sum.tasks, sum.depth), (None, None, Some(4)));
        assert_eq!(sum.wall, Some(Span(Duration::from_secs(10))));
        assert_eq!(some.plus(&Budget::default()), some);
    }
}
