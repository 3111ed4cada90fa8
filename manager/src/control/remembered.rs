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

#[cfg(test)]
mod tests {
    use air_nats::queue::Queued;
    use air_nats::records::Lasts;
    use air_protocol::budget::Leash;
    use air_protocol::task::{Task, Work};
    use air_protocol::time::Time;

    use super::*;

    fn backlog(job: &JobName, messages: usize) -> Box<Backlog> {
        let message = |seq: usize| Queued {
            seq: seq as u64,
            queued: Time::default(),
            id: format!("t{seq}").parse().unwrap(),
            attempt: 1,
            parent: None,
            leash: Leash::default(),
            traceparent: None,
            task: Ok(Task::new(Work::Run("true".into()))),
        };
        let mut backlog = Box::new(Backlog::new(job.clone()));
        let all = (1..=messages).map(message).collect();
        backlog.admit(all, &Lasts::default(), 0, Time::default());
        backlog
    }

    #[test]
    fn a_job_that_is_named_is_read_on_and_all_may_be_forgotten() {
        let job: JobName = "a".parse().unwrap();
        let mut remembered = Remembered::default();
        remembered.put(&job, backlog(&job, 2));
        assert!(remembered.of[&job].knows_to(99), "there was no more");
        remembered.expect_more(&job);
        assert!(!remembered.of[&job].knows_to(99));
        remembered.clear();
        assert!(remembered.take(&job).is_empty());
        assert_eq!(remembered.messages, 0);
    }

    #[test]
    fn others_are_forgotten_when_it_is_too_much() {
        let names: Vec<JobName> = ["a", "b", "c"].map(|name| name.parse().unwrap()).into();
        let mut remembered = Remembered::default();
        remembered.put(&names[0], backlog(&names[0], REMEMBERED_MAX / 2));
        remembered.put(&names[1], backlog(&names[1], REMEMBERED_MAX / 2));
        assert_eq!(remembered.of.len(), 2);
        remembered.put(&names[2], backlog(&names[2], 1));
        assert_eq!(remembered.of.len(), 2, "one of the others had to go");
        assert_eq!(remembered.take(&names[2]).len(), 1);
        assert_eq!(remembered.messages, REMEMBERED_MAX / 2);
        let lone = backlog(&names[2], REMEMBERED_MAX + 1);
        remembered.put(&names[2], lone);
        assert_eq!(remembered.of.len(), 1, "what is looked at stays");
    }
}
