//! The agenda: which job a manager looks at next, and when.
//!
//! Pure. First come, first served, so that a job with a million tasks waits its turn behind every
//! other job; a job stands in it once, however often it was named.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Instant;

use air_protocol::names::JobName;

/// Jobs to look at, now and later.
#[derive(Debug, Default)]
pub struct Agenda {
    ready: VecDeque<JobName>,
    urgent: VecDeque<JobName>,
    queued: HashSet<JobName>,
    later: BTreeSet<(Instant, JobName)>,
    due: HashMap<JobName, Instant>,
    busy: HashSet<JobName>,
    again: HashSet<JobName>,
}

impl Agenda {
    /// Look at the job as soon as there is room for a runner.
    pub fn now(&mut self, job: &JobName) {
        self.forget_later(job);
        if self.busy.contains(job) {
            self.again.insert(job.clone());
        } else if self.queued.insert(job.clone()) {
            self.ready.push_back(job.clone());
        }
    }

    /// Look at the job at once: it needs no room for a runner.
    pub fn urgently(&mut self, job: &JobName) {
        self.forget_later(job);
        if self.busy.contains(job) {
            self.again.insert(job.clone());
        } else if self.queued.insert(job.clone()) {
            self.urgent.push_back(job.clone());
        }
    }

    /// Look at the job at a time, or earlier.
    pub fn at(&mut self, job: &JobName, due: Instant) {
        let sooner = self.due.get(job).is_none_or(|before| due < *before);
        if sooner && !self.queued.contains(job) {
            self.forget_later(job);
            self.due.insert(job.clone(), due);
            self.later.insert((due, job.clone()));
        }
    }

    /// Do not look at the job any more.
    pub fn forget(&mut self, job: &JobName) {
        self.forget_later(job);
        self.again.remove(job);
        if self.queued.remove(job) {
            self.ready.retain(|other| other != job);
            self.urgent.retain(|other| other != job);
        }
    }

    fn forget_later(&mut self, job: &JobName) {
        if let Some(due) = self.due.remove(job) {
            self.later.remove(&(due, job.clone()));
        }
    }

    /// Moves jobs whose time has come to those that are ready.
    pub fn tick(&mut self, now: Instant) {
        while let Some((due, job)) = self.later.first().cloned() {
            if due > now {
                return;
            }
            self.now(&job);
        }
    }

    /// When the next job of those that wait for their time is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.later.first().map(|(due, _)| *due)
    }

    /// The next job, which is busy from now on; with no `room` only one that needs none.
    pub fn pop(&mut self, room: bool) -> Option<JobName> {
        let job = match self.urgent.pop_front() {
            Some(job) => job,
            None if room => self.ready.pop_front()?,
            None => return None,
        };
        self.queued.remove(&job);
        self.busy.insert(job.clone());
        Some(job)
    }

    /// Look at the job, which is busy, once more when it is done.
    pub fn again(&mut self, job: &JobName) {
        self.again.insert(job.clone());
    }

    /// Whether the job, which is busy, is to be looked at once more.
    pub fn wants_again(&self, job: &JobName) -> bool {
        self.again.contains(job)
    }

    /// The look at a job is over.
    pub fn done(&mut self, job: &JobName) {
        self.busy.remove(job);
        if self.again.remove(job) {
            self.now(job);
        }
    }

    /// Jobs that wait for room.
    pub fn len(&self) -> usize {
        self.ready.len()
    }

    /// Whether no job waits for room.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Whether a job is looked at, or about to be.
    pub fn has(&self, job: &JobName) -> bool {
        self.busy.contains(job) || self.queued.contains(job)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn job(name: &str) -> JobName {
        name.parse().unwrap()
    }

    #[test]
    fn first_come_first_served_and_once() {
        let mut agenda = Agenda::default();
        for name in ["a", "b", "a", "c"] {
            agenda.now(&job(name));
        }
        assert_eq!(agenda.pop(true), Some(job("a")));
        agenda.now(&job("a"));
        agenda.done(&job("a"));
        let order: Vec<_> = std::iter::from_fn(|| agenda.pop(true)).collect();
        assert_eq!(order, [job("b"), job("c"), job("a")]);
        agenda.again(&job("b"));
        agenda.done(&job("b"));
        assert_eq!(agenda.pop(true), Some(job("b")));
    }

    #[test]
    fn without_room_only_urgent_jobs_come() {
        let mut agenda = Agenda::default();
        agenda.now(&job("a"));
        agenda.urgently(&job("b"));
        assert_eq!(agenda.pop(false), Some(job("b")));
        assert_eq!(agenda.pop(false), None);
        agenda.urgently(&job("c"));
        assert_eq!(agenda.pop(true), Some(job("c")));
        assert_eq!(agenda.pop(true), Some(job("a")), "nobody is lost");
    }

    #[test]
    fn later_is_the_soonest_of_what_was_said() {
        let mut agenda = Agenda::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        agenda.at(&job("a"), at(5));
        agenda.at(&job("a"), at(9));
        agenda.at(&job("b"), at(3));
        agenda.at(&job("b"), at(1));
        agenda.tick(at(2));
        assert_eq!(agenda.pop(true), Some(job("b")));
        assert_eq!(agenda.pop(true), None);
        assert_eq!(agenda.next_due(), Some(at(5)));
        agenda.now(&job("a"));
        assert_eq!(agenda.next_due(), None);
    }

    #[test]
    fn a_job_that_is_forgotten_does_not_come() {
        let mut agenda = Agenda::default();
        let start = Instant::now();
        for name in ["a", "b", "c"] {
            agenda.now(&job(name));
        }
        agenda.urgently(&job("d"));
        agenda.urgently(&job("e"));
        agenda.at(&job("f"), start);
        for name in ["b", "d", "f"] {
            agenda.forget(&job(name));
            assert!(!agenda.has(&job(name)), "{name}");
        }
        assert_eq!((agenda.next_due(), agenda.len()), (None, 2));
        let order: Vec<_> = std::iter::from_fn(|| agenda.pop(true)).collect();
        assert_eq!(order, [job("e"), job("a"), job("c")]);
        agenda.again(&job("e"));
        agenda.forget(&job("e"));
        agenda.done(&job("e"));
        assert!(!agenda.has(&job("e")) && agenda.is_empty());
    }

    #[test]
    fn a_busy_job_comes_once_more_when_it_is_done() {
        let mut agenda = Agenda::default();
        agenda.urgently(&job("a"));
        assert!(agenda.has(&job("a")) && agenda.is_empty());
        assert_eq!(agenda.pop(false), Some(job("a")));
        assert!(agenda.has(&job("a")) && !agenda.wants_again(&job("a")));
        agenda.urgently(&job("a"));
        assert!(agenda.wants_again(&job("a")));
        assert_eq!(agenda.pop(true), None, "it is busy");
        agenda.done(&job("a"));
        assert_eq!((agenda.len(), agenda.is_empty()), (1, false));
        assert_eq!(agenda.pop(true), Some(job("a")));
        agenda.done(&job("a"));
        assert!(!agenda.has(&job("a")));
    }

    #[test]
    fn a_job_that_is_about_to_come_needs_no_time() {
        let mut agenda = Agenda::default();
        let start = Instant::now();
        agenda.now(&job("a"));
        agenda.at(&job("a"), start);
        assert_eq!(agenda.next_due(), None);
        agenda.pop(true);
        agenda.done(&job("a"));
        agenda.at(&job("a"), start);
        agenda.urgently(&job("a"));
        assert_eq!(agenda.next_due(), None);
        agenda.urgently(&job("a"));
        assert_eq!(agenda.pop(false), Some(job("a")));
        agenda.done(&job("a"));
        assert_eq!(agenda.pop(false), None, "once");
        agenda.at(&job("b"), start);
        agenda.tick(start);
        assert_eq!(agenda.pop(true), Some(job("b")), "its time has come");
    }
}
