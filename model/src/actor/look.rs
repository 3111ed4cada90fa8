//! One look of a manager at one job: `manager/src/advance.rs`. `decide` says what comes next.

use air_manager::backlog::{Backlog, Pick, Ready};
use air_manager::circle::Waits;
use air_manager::decide::{Folded, Me, Pending, Rest, Step, View, decide, then};
use air_manager::offers::Offer;
use air_nats::jobs::Key;
use air_nats::queue::Queued;
use air_protocol::job::{Event, JobState};
use air_protocol::lease::Phase;
use air_protocol::names::JobName;
use air_protocol::spec::Spec;
use air_protocol::time::Time;
use std::time::Duration;

use super::empty::Empty;
use super::remove::Remove;
use super::requeue::Requeue;
use super::runner::Runner;
use super::settle::{Deed, End, Settle, Stage as Settling};
use super::{Env, Flow, Swapping};
use crate::bug::Bug;
use crate::store::Write;

mod read;

/// A look, as far as it is.
#[derive(Debug, Clone)]
pub struct Look {
    /// The job.
    pub job: JobName,
    /// The manager.
    pub me: Me,
    /// The key, as read before everything else.
    pub key: Key,
    /// What is known of the queue.
    pub backlog: Box<Backlog>,
    /// The records, folded.
    pub folded: Option<Folded>,
    /// What the queue allows.
    pub pick: Option<Pick>,
    /// What was counted.
    pub pending: Option<Pending>,
    /// Other jobs' records were asked for.
    pub foreign_asked: bool,
    /// The queue was read anew.
    pub scanned_anew: bool,
    /// Lost messages were searched for.
    pub searched: bool,
    /// The next request.
    pub next: Next,
    /// How it ended.
    pub rest: Option<Rest>,
    /// It ends with its first write, so that no backlog outlives one.
    pub short: bool,
}

/// The next request.
#[derive(Debug, Clone)]
pub enum Next {
    /// Reads the key from the leader.
    Key,
    /// Reads records.
    Records,
    /// Reads last records of other jobs' tasks.
    Foreign,
    /// Reads the queue.
    Queue,
    /// Reads the last records of these messages' tasks.
    Lasts(Vec<Queued>),
    /// Deletes what is left over; then counts, or ends.
    Delete(Vec<u64>, bool),
    /// Counts schedules.
    CountSchedules,
    /// Counts messages; this many schedules there were.
    CountQueue(u64),
    /// Publishes again what is lost.
    Requeue(Box<Requeue>),
    /// Writes.
    Swap(Swapping, After),
    /// Commits decisions.
    Settle(Box<Settle>),
    /// Empties.
    Empty(Box<Empty>),
    /// Removes.
    Remove(Box<Remove>),
    /// Deletes the key of a job that is long over.
    Forget,
    /// Nothing.
    End,
}

/// What follows a write that went through.
#[derive(Debug, Clone, PartialEq)]
pub enum After {
    /// Another look.
    Look,
    /// The runner is started.
    Claim(Box<Ready>),
    /// Nothing, whether it goes through or not: the claim is given back by an act of its own.
    Nothing,
    /// The decisions are committed.
    Settle,
}

impl Look {
    /// A look that begins with a read of the key, or with the key as the watch knows it.
    pub fn new(job: JobName, me: Me, key: Option<Key>, backlog: Box<Backlog>) -> Self {
        Self {
            job,
            me,
            next: if key.is_some() {
                Next::Records
            } else {
                Next::Key
            },
            key: key.unwrap_or(Key::Absent),
            backlog,
            folded: None,
            pick: None,
            pending: None,
            foreign_asked: false,
            scanned_anew: false,
            searched: false,
            rest: None,
            short: false,
        }
    }

    /// Whether the next request is a write.
    pub fn writes(&self) -> bool {
        match &self.next {
            Next::Delete(..) | Next::Swap(..) | Next::Forget => true,
            Next::Settle(settle) => settle.writes(),
            Next::Empty(empty) => empty.writes(),
            Next::Remove(remove) => remove.writes(),
            Next::Requeue(requeue) => requeue.writes(),
            _ => false,
        }
    }

    /// One request.
    pub fn step(&mut self, env: &mut Env<'_>, waits: &mut Waits) -> Flow {
        match std::mem::replace(&mut self.next, Next::End) {
            Next::Key => self.reread(env, waits),
            Next::Records => self.read_records(env, waits),
            Next::Foreign => {
                let asks = self.backlog.asks_again();
                let view = env.view();
                if !self.has_seen(&view, 0) {
                    return Flow::Ends;
                }
                let lasts = env.store.last_records(&view, &self.job, &asks);
                self.backlog.learn_lasts(&lasts);
                self.foreign_asked = true;
                self.read_on(env, waits)
            }
            Next::Queue => {
                let messages = env
                    .store
                    .queued(&env.view(), &self.job, self.backlog.next_seq());
                self.next = Next::Lasts(messages);
                Flow::Goes
            }
            Next::Lasts(messages) => {
                let asks = self.backlog.asks(&messages);
                let view = env.view();
                let end = messages.last().map_or(0, |message| message.seq);
                if !self.has_seen(&view, end) {
                    return Flow::Ends;
                }
                let lasts = env.store.last_records(&view, &self.job, &asks);
                self.backlog.admit(messages, &lasts, 0, env.now);
                self.read_on(env, waits)
            }
            Next::Delete(left, count) => self.delete(env, left, count),
            Next::CountSchedules => {
                let schedules = env.store.names().job_schedules(&self.job);
                self.next = Next::CountQueue(env.store.count(&schedules));
                Flow::Goes
            }
            Next::CountQueue(schedules) => self.count(env, waits, schedules),
            Next::Swap(swapping, after) => self.swap(env, waits, swapping, after),
            Next::Settle(mut settle) => {
                let flow = settle.step(env);
                self.sub(env, waits, flow, Next::Settle(settle))
            }
            Next::Empty(mut empty) => {
                let flow = empty.step(env);
                self.sub(env, waits, flow, Next::Empty(empty))
            }
            Next::Remove(mut remove) => {
                let flow = remove.step(env);
                self.sub(env, waits, flow, Next::Remove(remove))
            }
            Next::Requeue(requeue) => self.requeue(env, waits, requeue),
            Next::Forget => {
                env.write(&Write::Erase(self.job.clone(), self.key.revision()));
                Flow::Ends
            }
            Next::End => Flow::Ends,
        }
    }

    /// A longer act goes on, or is over.
    fn sub(&mut self, env: &mut Env<'_>, waits: &mut Waits, flow: Flow, next: Next) -> Flow {
        if flow == Flow::Goes {
            self.next = next;
            return flow;
        }
        if self.short {
            return Flow::Ends;
        }
        if !matches!(next, Next::Settle(_)) {
            *self.backlog = Backlog::new(self.job.clone());
        }
        self.reread(env, waits)
    }

    fn requeue(&mut self, env: &mut Env<'_>, waits: &mut Waits, mut requeue: Box<Requeue>) -> Flow {
        self.searched = true;
        match requeue.step(env) {
            Flow::Goes => {
                self.next = Next::Requeue(requeue);
                Flow::Goes
            }
            Flow::Ends if !requeue.found => self.decide(env, waits),
            Flow::Ends if self.short => Flow::Ends,
            Flow::Ends => {
                self.backlog.expect_more();
                self.reread(env, waits)
            }
        }
    }

    fn reread(&mut self, env: &mut Env<'_>, waits: &mut Waits) -> Flow {
        self.key = env.store.key(&self.job);
        self.forget();
        self.decide(env, waits)
    }

    fn forget(&mut self) {
        self.folded = None;
        self.pick = None;
        self.pending = None;
    }

    fn spec(&self, env: &Env<'_>) -> Spec {
        env.store.spec(&self.job).unwrap_or_default()
    }

    fn delete(&mut self, env: &mut Env<'_>, mut left: Vec<u64>, count: bool) -> Flow {
        if let Some(seq) = left.pop() {
            if env.write(&Write::Delete(seq)).is_none() {
                return Flow::Ends;
            }
            self.backlog.deleted(seq);
        }
        self.next = match (left.is_empty(), count) {
            (false, _) => Next::Delete(left, count),
            (true, true) => Next::CountSchedules,
            (true, false) => return Flow::Ends,
        };
        Flow::Goes
    }

    /// Messages that are left over.
    pub fn left(&self, now: Time) -> Vec<u64> {
        let left = self.backlog.leftovers(now, Duration::ZERO);
        left.into_keys().collect()
    }

    fn swap(
        &mut self,
        env: &mut Env<'_>,
        waits: &mut Waits,
        mut swapping: Swapping,
        after: After,
    ) -> Flow {
        if env.bug == Some(Bug::TrustTheWatch) {
            swapping.expected = None;
        }
        let Some(answer) = swapping.step(env, &self.job) else {
            self.next = Next::Swap(swapping, after);
            return Flow::Goes;
        };
        let Some(revision) = answer else {
            return match after {
                _ if self.short => Flow::Ends,
                After::Nothing => self.leave(env),
                After::Look | After::Claim(_) | After::Settle => self.reread(env, waits),
            };
        };
        let state = swapping.state().clone();
        self.key = Key::State(Box::new(state.clone()), revision);
        match after {
            After::Look if self.short => self.leave(env),
            After::Nothing => self.leave(env),
            After::Look => {
                self.pick = None;
                self.pending = None;
                self.decide(env, waits)
            }
            After::Claim(ready) => self.spawn(env, waits, &state, revision, &ready),
            After::Settle => {
                self.next = Next::Settle(Box::new(settle(&self.job, state, revision)));
                Flow::Goes
            }
        }
    }

    fn spawn(
        &mut self,
        env: &mut Env<'_>,
        waits: &mut Waits,
        state: &JobState,
        revision: u64,
        ready: &Ready,
    ) -> Flow {
        let Some(lease) = state.lease() else {
            return Flow::Ends;
        };
        if env.refuse_start {
            let event = Event::StartFailed {
                runner: lease.runner,
                hold_until: env.now.after(air_manager::hold(state.failed_starts)),
                counts: true,
                reason: "refused".into(),
            };
            let Ok(next) = then(state, &event, env.now) else {
                return Flow::Ends;
            };
            self.next = Next::Swap(Swapping::new(next, revision), After::Nothing);
            return Flow::Goes;
        }
        if env.reply != super::Reply::Dies {
            let target = ready.target.clone();
            env.spawned.push(Runner::new(
                self.job.clone(),
                state.clone(),
                revision,
                target,
            ));
        }
        let _ = waits;
        self.leave(env)
    }

    /// Deletes what is left over, and ends.
    fn leave(&mut self, env: &Env<'_>) -> Flow {
        let left = self.left(env.now);
        if left.is_empty() {
            return Flow::Ends;
        }
        self.next = Next::Delete(left, false);
        Flow::Goes
    }

    fn decide(&mut self, env: &mut Env<'_>, waits: &mut Waits) -> Flow {
        let (spec, offers) = (env.store.spec(&self.job), [Offer::plain("process")]);
        let view = View {
            now: env.now,
            key: &self.key,
            spec: &spec,
            folded: self.folded.as_ref(),
            pick: self.pick.as_ref(),
            pending: self.pending,
            refused: None,
            limited: None,
            searched: self.searched,
            runner: env.run(),
            offers: &offers,
        };
        #[allow(
            clippy::expect_used,
            reason = "a decision that its own state machine refuses is a bug to be found"
        )]
        let step = decide(&view, &self.me).expect("decisions are valid");
        let revision = self.key.revision();
        let swap = |state: JobState, after| Next::Swap(Swapping::new(state, revision), after);
        self.next = match step {
            Step::ReadRecords => Next::Records,
            Step::ReadQueue if !self.foreign_asked && !self.backlog.asks_again().is_empty() => {
                Next::Foreign
            }
            Step::ReadQueue => return self.read_on(env, waits),
            Step::Count => match self.left(env.now) {
                left if left.is_empty() => Next::CountSchedules,
                left => Next::Delete(left, true),
            },
            Step::Requeue => Next::Requeue(Box::new(Requeue::new(self.job.clone()))),
            Step::Write(state) => swap(*state, After::Look),
            Step::Claim(state, ready) => swap(env.run_of(*state), After::Claim(ready)),
            Step::Settle(state) => swap(env.run_of(*state), After::Settle),
            Step::Empty => match self.key.state() {
                Some(state) => Next::Empty(Box::new(Empty::new(
                    self.job.clone(),
                    state.clone(),
                    revision,
                ))),
                None => Next::End,
            },
            Step::Remove => match self
                .key
                .state()
                .and_then(|state| Remove::new(self.job.clone(), state, revision, env))
            {
                Some(remove) => Next::Remove(Box::new(remove)),
                None => {
                    self.rest = self
                        .key
                        .state()
                        .and_then(|state| state.zombie_until)
                        .map(Rest::Held);
                    return Flow::Ends;
                }
            },
            Step::Forget => Next::Forget,
            Step::Rest(rest) => {
                self.rest = Some(rest);
                return self.leave(env);
            }
        };
        Flow::Goes
    }
}

fn settle(job: &JobName, state: JobState, revision: u64) -> Settle {
    let decisions = match state.lease().map(|lease| &lease.phase) {
        Some(Phase::Settling { decisions }) => decisions.clone(),
        _ => Vec::new(),
    };
    Settle {
        job: job.clone(),
        state,
        revision,
        fence: Some(revision),
        deeds: decisions.into_iter().map(Deed::Decision).collect(),
        last: 0,
        end: End::Release,
        stage: Settling::Read,
    }
}
