//! What is remembered of queues between looks: bounded, since all of it can be read anew.

use std::collections::HashMap;

use air_protocol::limits::REMEMBERED_MAX;
use air_protocol::names::JobName;

use crate::backlog::Backlog;

/// The backlogs of jobs that are not looked at just now.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    of: HashMap<JobName, Box<Backlog>>,
    messages: usize,
}

impl Remembered {
    /// Takes the backlog of a job out; a fresh one where none is remembered.
    pub(super) fn take(&mut self, job: &JobName) -> Box<Backlog> {
        let Some(backlog) = self.of.remove(job) else {
            return Box::new(Backlog::new(job.clone()));
        };
        self.messages -= backlog.len();
        backlog
    }

    /// Remembers a backlog. Others are forgotten while there are more than [`REMEMBERED_MAX`] messages in all.
    pub(super) fn put(&mut self, job: &JobName, backlog: Box<Backlog>) {
        self.messages += backlog.len();
        self.of.insert(job.clone(), backlog);
        while self.messages > REMEMBERED_MAX {
            let Some(other) = self.of.keys().find(|other| *other != job).cloned() else {
                return;
            };
            self.take(&other);
        }
    }

    /// The job may have more messages than were seen.
    pub(super) fn expect_more(&mut self, job: &JobName) {
        if let Some(backlog) = self.of.get_mut(job) {
            backlog.expect_more();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
