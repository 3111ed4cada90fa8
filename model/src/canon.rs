//! A state as what matters of it: two states that differ only in numbers that grow for ever are one.
//!
//! Sequences, revisions and ids of runs are compared by the system only with one another, so each
//! stands for its rank among all that a state holds. Times are left out, but for whether a hold is
//! there: the search decides by itself when one has passed. Every value is taken apart field by field,
//! so that a new field of the product must be thought of here.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use air_nats::commit::{Commit, NewTask, With};
use air_nats::jobs::Key;
use air_nats::queue::Queued;
use air_protocol::invariants::Parent;
use air_protocol::job::{JobState, JobStatus};
use air_protocol::lease::{Decision, Ending, Lease, Phase, Running, Target, Verdict};
use air_protocol::ledger::{Counters, Ledger};
use air_protocol::record::Record;
use air_protocol::task::{Task, Work};
use uuid::Uuid;

use crate::store::{Content, Store, Value, Write};

/// Numbers of one kind, in order.
#[derive(Debug, Default, Clone)]
struct Ranks(Vec<u128>);

impl Ranks {
    fn of(&self, number: u128) -> usize {
        if number == 0 {
            return 0;
        }
        self.0
            .binary_search(&number)
            .map_or(usize::MAX, |rank| rank + 1)
    }

    fn close(&mut self) {
        self.0.sort_unstable();
        self.0.dedup();
    }
}

/// Walks over a state: once to collect its numbers, and once to hash their ranks.
#[derive(Debug)]
pub struct Canon {
    seqs: Ranks,
    revisions: Ranks,
    runs: Ranks,
    hash: Option<DefaultHasher>,
}

impl Canon {
    /// The fingerprint of what `walk` goes over.
    pub fn of(walk: impl Fn(&mut Self)) -> u64 {
        let mut canon = Self {
            seqs: Ranks::default(),
            revisions: Ranks::default(),
            runs: Ranks::default(),
            hash: None,
        };
        walk(&mut canon);
        canon.seqs.close();
        canon.revisions.close();
        canon.runs.close();
        canon.hash = Some(DefaultHasher::new());
        walk(&mut canon);
        canon.hash.as_ref().map_or(0, Hasher::finish)
    }

    /// A sequence of the stream.
    pub fn seq(&mut self, seq: u64) {
        match &mut self.hash {
            None => self.seqs.0.push(seq.into()),
            Some(hash) => self.seqs.of(seq.into()).hash(hash),
        }
    }

    /// A revision of a key.
    pub fn revision(&mut self, revision: u64) {
        match &mut self.hash {
            None => self.revisions.0.push(revision.into()),
            Some(hash) => self.revisions.of(revision.into()).hash(hash),
        }
    }

    /// The id of a run.
    pub fn run(&mut self, run: Uuid) {
        match &mut self.hash {
            None => self.runs.0.push(run.as_u128()),
            Some(hash) => self.runs.of(run.as_u128()).hash(hash),
        }
    }

    /// What is hashed as it is.
    pub fn plain(&mut self, value: &(impl Hash + ?Sized)) {
        if let Some(hash) = &mut self.hash {
            value.hash(hash);
        }
    }

    /// A list whose order means nothing, such as that of equal managers.
    pub fn unordered(&mut self, count: usize, walk: impl Fn(usize, &mut Self)) {
        if self.hash.is_none() {
            (0..count).for_each(|index| walk(index, self));
            return;
        }
        let outer = self.hash.take();
        let mut parts: Vec<_> = (0..count)
            .map(|index| {
                self.hash = Some(DefaultHasher::new());
                walk(index, self);
                self.hash.as_ref().map_or(0, Hasher::finish)
            })
            .collect();
        parts.sort_unstable();
        self.hash = outer;
        self.plain(&parts);
    }

    /// An optional part.
    pub fn maybe<T>(&mut self, value: Option<&T>, walk: impl Fn(&T, &mut Self)) {
        self.plain(&value.is_some());
        if let Some(value) = value {
            walk(value, self);
        }
    }

    /// The broker.
    pub fn store(&mut self, store: &Store) {
        for one in store.air.all() {
            self.seq(one.seq);
            self.plain(&*one.subject);
            self.plain(&one.schedule.is_some());
            self.content(&one.payload);
        }
        // The end of the stream is compared with what the keys name.
        self.seq(store.air.last_seq());
        for one in store.jobs.all() {
            self.revision(one.seq);
            self.plain(&*one.subject);
            self.value(&one.payload);
        }
        for (job, spec) in &store.specs {
            self.plain(job);
            self.plain(&spec.as_ref().is_ok_and(|spec| spec.paused));
        }
        for (run, page) in store.pages.keys() {
            self.run(*run);
            self.plain(page);
        }
        self.unordered(store.flight.len(), |index, canon| {
            canon.write(&store.flight[index])
        });
    }

    fn content(&mut self, content: &Content) {
        match content {
            Content::Task(message) => {
                self.plain(&message.attempt);
                self.plain(&message.task.as_ref().err());
                self.maybe(message.task.as_ref().ok(), |task, canon| canon.task(task));
                self.maybe(message.parent.as_ref(), |parent, canon| {
                    canon.parent(parent)
                });
            }
            Content::Record(record, parent) => {
                self.record(record);
                self.maybe(parent.as_ref(), |parent, canon| canon.parent(parent));
            }
        }
    }

    fn parent(&mut self, parent: &Parent) {
        let Parent { job, task, run } = parent;
        self.plain(job);
        self.plain(task);
        self.maybe(run.as_ref(), |run, canon| canon.run(*run));
    }

    /// Tasks never change after they were published: their name stands for them.
    fn task(&mut self, task: &Task) {
        self.plain(&task.id);
        if let Work::Fanout(fanout) = &task.work {
            self.run(fanout.run);
            self.plain(&(fanout.page, fanout.pages));
        }
    }

    fn new_task(&mut self, new: &NewTask) {
        self.plain(&new.job);
        self.plain(&new.id);
        self.plain(&new.attempt);
        self.task(&new.task);
    }

    fn record(&mut self, record: &Record) {
        self.plain(&record.task);
        self.plain(&record.status);
        self.plain(&record.attempt);
        self.plain(&record.previous);
        self.seq(record.after);
        self.plain(&(record.failures, record.losses, record.lost));
        self.seq(record.seq.unwrap_or_default());
        self.maybe(record.run.as_ref(), |run, canon| canon.run(*run));
        self.revision(record.fence.unwrap_or_default());
        self.plain(&(
            record.subtasks,
            record.started.is_some(),
            record.retry_at.is_some(),
        ));
        self.plain(&record.jobs);
        self.plain(&record.spec.is_some());
    }

    /// A commit.
    pub fn commit(&mut self, commit: &Commit) {
        self.plain(&commit.job);
        self.record(&commit.record);
        commit.with.iter().for_each(|with| self.with(with));
    }

    /// A message that goes with a record, or comes again.
    pub fn with(&mut self, with: &With) {
        match with {
            With::Task(new) => self.new_task(new),
            With::Schedule(new, _) => {
                self.plain("later");
                self.new_task(new);
            }
            With::Unschedule => self.plain("none"),
        }
    }

    fn write(&mut self, write: &Write) {
        match write {
            Write::Key(job, value, expected) => {
                self.plain(job);
                self.revision(expected.unwrap_or_default());
                self.value(value);
            }
            Write::Erase(job, revision) => {
                self.plain(job);
                self.revision(*revision);
            }
            Write::Commit(commit, _) => self.commit(commit),
            Write::Again(with, last) => {
                self.with(with);
                self.seq(*last);
            }
            Write::Delete(seq) => self.seq(*seq),
            Write::Purge(filter, up_to) => {
                self.plain(filter);
                self.seq(*up_to);
            }
        }
    }

    /// A message of a queue, by its sequence: the stream holds the rest.
    pub fn queued(&mut self, queued: &Queued) {
        self.seq(queued.seq);
    }

    /// What a key holds.
    pub fn value(&mut self, value: &Value) {
        match value {
            Value::State(state) => self.state(state),
            Value::Garbage => self.plain("garbage"),
            Value::Deleted => self.plain("deleted"),
        }
    }

    /// A key as it was read.
    pub fn key(&mut self, key: &Key) {
        self.revision(key.revision());
        match key {
            Key::State(state, _) => self.state(state),
            Key::Absent => self.plain("absent"),
            Key::Deleted(_) => self.plain("deleted"),
            Key::Garbage(..) => self.plain("garbage"),
            Key::Newer(..) => self.plain("newer"),
        }
    }

    /// A state.
    pub fn state(&mut self, state: &JobState) {
        let JobState {
            v: _,
            status,
            ledger,
            last_record,
            hold_until,
            failed_starts,
            start_error,
            // No job of the model has a budget.
            over_budget: _,
            zombie_until,
            purge_to,
            updated: _,
        } = state;
        self.plain(status.as_str());
        match status {
            JobStatus::Working { lease } => self.lease(lease),
            JobStatus::Completed { drained } | JobStatus::Cancelled { drained } => {
                self.seq(*drained);
            }
            JobStatus::Failed { task } => self.plain(task),
            JobStatus::Waiting | JobStatus::Cancelling | JobStatus::Removing => {}
        }
        self.ledger(ledger);
        self.seq(*last_record);
        self.plain(&(hold_until.is_some(), failed_starts, start_error.is_some()));
        self.plain(&zombie_until.is_some());
        self.maybe(purge_to.as_ref(), |to, canon| canon.seq(to.stream));
    }

    /// A ledger.
    pub fn ledger(&mut self, ledger: &Ledger) {
        let Ledger {
            counters,
            accounted,
            failing,
            forgiven,
            children,
            purged_to,
            purged: _,
        } = ledger;
        self.counters(counters);
        self.seq(*accounted);
        self.plain(failing);
        self.seq(*forgiven);
        self.plain(children);
        self.seq(*purged_to);
    }

    fn counters(&mut self, counters: &Counters) {
        let Counters {
            succeeded,
            failed,
            cancelled,
            skipped,
            retrying,
            reset,
            parked,
            attempts,
            losses,
            subtasks,
            cpu_ms: _,
            cost: _,
        } = counters;
        self.plain(&[succeeded, failed, cancelled, skipped, retrying]);
        self.plain(&[reset, parked, attempts, losses, subtasks]);
    }

    fn lease(&mut self, lease: &Lease) {
        let Lease {
            runner,
            manager: _,
            backend: _,
            realm: _,
            budget: _,
            claimed: _,
            renewed: _,
            ttl: _,
            start_within: _,
            phase,
        } = lease;
        self.run(*runner);
        self.phase(phase);
    }

    /// A phase.
    pub fn phase(&mut self, phase: &Phase) {
        self.plain(phase.as_str());
        match phase {
            Phase::Starting { target } => self.target(target),
            Phase::Running(running) => self.running(running),
            Phase::Stopping { running, then } => {
                self.running(running);
                self.plain(&(*then == Ending::Remove));
            }
            Phase::Settling { decisions } => {
                decisions
                    .iter()
                    .for_each(|decision| self.decision(decision));
            }
            Phase::Recovering { from, by: _ } => self.phase(from),
        }
    }

    fn running(&mut self, running: &Running) {
        let Running {
            target,
            fence,
            started: _,
            host: _,
        } = running;
        self.target(target);
        self.revision(*fence);
    }

    /// An attempt.
    pub fn target(&mut self, target: &Target) {
        let Target {
            task,
            seq,
            attempt,
            expected,
        } = target;
        self.plain(task);
        self.seq(*seq);
        self.plain(attempt);
        self.seq(*expected);
    }

    /// A decision.
    pub fn decision(&mut self, decision: &Decision) {
        let Decision { target, verdict } = decision;
        self.target(target);
        self.plain(match verdict {
            Verdict::Skip { .. } => "skip",
            Verdict::Fail { .. } => "fail",
            Verdict::Unstartable { .. } => "unstartable",
            Verdict::Move { .. } => "move",
            Verdict::Park { .. } => "park",
        });
    }
}
