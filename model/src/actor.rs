//! The processes: managers, runners and users, as machines that do one request to the broker a step.
//!
//! What they decide is the product's own code: `decide`, `Backlog`, `JobState::apply`, `settled`,
//! `left_behind`, `cancelled`, `Claimed::commit_of`, `fate`. What stands here is the order of their
//! requests, which in the product is I/O code (`advance.rs`, `recover.rs`, `life.rs` and others) that
//! cannot run without NATS: it is written again, step by step, beside the file that it follows.

pub mod empty;
pub mod look;
pub mod recover;
pub mod remove;
pub mod requeue;
pub mod runner;
pub mod settle;
pub mod user;

use std::sync::Arc;

use air_nats::commit::Commit;
use air_nats::jobs::Key;
use air_protocol::job::JobState;
use air_protocol::names::JobName;
use air_protocol::time::Time;
use uuid::Uuid;

use crate::broker::Stream;
use crate::bug::Bug;
use crate::store::{Answer, Content, Store, Value, Write};
use runner::Runner;

/// What becomes of the answer to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reply {
    /// It is heard.
    Heard,
    /// The write is applied, or refused, and nobody hears of it.
    Lost,
    /// The write is on its way, and arrives at any later time.
    Late,
    /// It is heard, and the process dies before it does anything more.
    Dies,
}

/// What a process finds around it for one step.
#[derive(Debug)]
pub struct Env<'a> {
    /// The broker.
    pub store: &'a mut Store,
    /// The stream as a lagging replica sees it; the leader's own when none.
    pub replica: Option<Stream<Content>>,
    /// The moment.
    pub now: Time,
    /// What becomes of the answer to a write of this step.
    pub reply: Reply,
    /// A bug that is to be found.
    pub bug: Option<Bug>,
    /// The id of the next runner.
    pub runs: &'a mut u128,
    /// Runners that are started in this step.
    pub spawned: Vec<Runner>,
    /// Whether a backend refuses to start a runner in this step.
    pub refuse_start: bool,
}

/// Whether a process goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// It has another step.
    Goes,
    /// It is over.
    Ends,
}

impl Env<'_> {
    /// The stream as this step's reads see it.
    pub fn view(&self) -> Stream<Content> {
        self.replica
            .clone()
            .unwrap_or_else(|| self.store.air.clone())
    }

    /// A fresh id for a runner.
    pub fn run(&self) -> Uuid {
        Uuid::from_u128(*self.runs << 8)
    }

    /// The state of a claim: its id is used up.
    pub fn run_of(&mut self, state: JobState) -> JobState {
        *self.runs += 1;
        state
    }

    /// Writes; none when no answer is heard.
    pub fn write(&mut self, write: &Write) -> Option<Answer> {
        match self.reply {
            Reply::Late => {
                self.store.flight.push(write.clone());
                return None;
            }
            Reply::Heard | Reply::Lost | Reply::Dies => {}
        }
        let answer = self.store.apply(write, self.now);
        (self.reply != Reply::Lost).then_some(answer)
    }
}

/// A compare-and-swap of a job's key, repeated until it is accepted or refused.
#[derive(Debug, Clone)]
pub struct Swapping {
    /// The state to be written.
    pub state: Arc<Value>,
    /// The revision that is expected; unchecked only where a bug is shown.
    pub expected: Option<u64>,
    /// An earlier try had no answer.
    pub unsure: bool,
}

impl Swapping {
    /// A state at a revision.
    pub fn new(state: JobState, expected: u64) -> Self {
        Self {
            state: Arc::new(Value::State(Box::new(state))),
            expected: Some(expected),
            unsure: false,
        }
    }

    /// The state.
    pub fn state(&self) -> &JobState {
        match &*self.state {
            Value::State(state) => state,
            Value::Garbage | Value::Deleted => unreachable!("only states are swapped"),
        }
    }

    /// One try: none without an answer, else the revision if it won. As `swap` in `nats/src/bucket.rs`.
    pub fn step(&mut self, env: &mut Env<'_>, job: &JobName) -> Option<Option<u64>> {
        let write = Write::Key(job.clone(), self.state.clone(), self.expected);
        let Some(answer) = env.write(&write) else {
            self.unsure = true;
            return None;
        };
        Some(match answer {
            Answer::At(revision) => Some(revision),
            Answer::Superseded if !self.unsure => None,
            Answer::Superseded => match env.store.key(job) {
                Key::State(state, revision) if *state == *self.state() => Some(revision),
                _ => None,
            },
        })
    }
}

/// A commit, repeated until it is accepted or refused.
#[derive(Debug, Clone)]
pub struct Committing {
    /// What is committed.
    pub commit: Arc<Commit>,
    /// An earlier try had no answer.
    pub unsure: bool,
}

impl Committing {
    /// A commit that was not tried yet.
    pub fn new(commit: Commit) -> Self {
        Self {
            commit: Arc::new(commit),
            unsure: false,
        }
    }

    /// One try: none without an answer, else the record's sequence if it is ours. As `commit` in
    /// `nats/src/commit.rs`.
    pub fn step(&mut self, env: &mut Env<'_>) -> Option<Option<u64>> {
        let checked = env.bug != Some(Bug::CommitWithoutExpectation);
        let write = Write::Commit(self.commit.clone(), checked);
        let Some(answer) = env.write(&write) else {
            self.unsure = true;
            return None;
        };
        Some(match answer {
            Answer::At(seq) => Some(seq),
            Answer::Superseded if !self.unsure => None,
            Answer::Superseded => {
                let (job, record) = (&self.commit.job, &self.commit.record);
                match env.store.last_record(job, &record.task) {
                    Some((seq, last)) if last == *record => Some(seq),
                    _ => None,
                }
            }
        })
    }
}
