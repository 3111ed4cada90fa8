//! What a task carries of its budget, and what is known of a key whose limit is reached.

use serde::{Deserialize, Serialize};

use crate::VERSION;
use crate::codec::{self, DecodeError};
use crate::names::JobName;
use crate::record::Record;
use crate::time::Time;

/// What a task carries along: the account that pays for it, and how many tasks stand above it. Whoever publishes
/// a task again hands both on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leash {
    /// The account: the name of its root job (`Air-Budget`).
    pub budget: Option<JobName>,
    /// Generations of sub-tasks down to this task; 0 for one that a user queued (`Air-Depth`).
    pub depth: u32,
}

impl Leash {
    /// As headers say it; what is no name, or no number, counts as absent.
    pub fn of_headers(budget: Option<&str>, depth: Option<&str>) -> Self {
        Self {
            budget: budget.and_then(|name| name.parse().ok()),
            depth: depth.and_then(|text| text.parse().ok()).unwrap_or(0),
        }
    }

    /// That of a record's task.
    pub fn of_record(record: &Record) -> Self {
        Self {
            budget: record.budget.clone(),
            depth: record.depth,
        }
    }

    /// That of the sub-tasks.
    #[must_use]
    pub fn below(&self) -> Self {
        Self {
            budget: self.budget.clone(),
            depth: self.depth.saturating_add(1),
        }
    }

    /// The same, paid for by `account` where none is named.
    #[must_use]
    pub fn or(mut self, account: Option<&JobName>) -> Self {
        self.budget = self.budget.or_else(|| account.cloned());
        self
    }
}

/// A key of the service whose limit is reached: under `_limit.<id of the key>` in the bucket of accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeyLimit {
    /// Version of the entry.
    pub v: u8,
    /// No agent's task is started with this key before.
    pub until: Time,
    /// When that was heard.
    pub since: Time,
}

impl KeyLimit {
    /// Reads an entry.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let value = codec::value(None, bytes)?;
        codec::check_version(&value)?;
        codec::typed(value)
    }

    /// A limit that was heard of just now.
    pub fn new(until: Time, since: Time) -> Self {
        Self {
            v: VERSION,
            until,
            since,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Status, tests::record};

    #[test]
    fn a_record_hands_on_what_its_task_carried() {
        let leash = Leash::of_headers(Some("root"), Some("3"));
        let mut of_it = record("t", Status::Succeeded, 1, None, 0);
        of_it.set_leash(leash.clone());
        assert_eq!(Leash::of_record(&of_it), leash);
    }

    #[test]
    fn headers_that_make_no_sense_count_as_absent() {
        let leash = Leash::of_headers(Some("root"), Some("3"));
        assert_eq!((leash.below().depth, leash.depth), (4, 3));
        assert_eq!(leash.below().budget, leash.budget);
        let none = Leash::of_headers(Some("no name"), Some("-1"));
        assert_eq!(none, Leash::default());
        let root: JobName = "other".parse().unwrap();
        assert_eq!(none.or(Some(&root)).budget, Some(root.clone()));
        assert_eq!(leash.clone().or(Some(&root)), leash, "its own account pays");
        let deepest = Leash {
            depth: u32::MAX,
            ..Leash::default()
        };
        assert_eq!(deepest.below().depth, u32::MAX);
    }
}
