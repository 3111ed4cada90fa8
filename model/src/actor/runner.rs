//! A runner: start, look, run, commit, release: `runner/src/life.rs`, `hold.rs`, `guard.rs`, `settle.rs`.
//!
//! The program is a choice of the caller. What it queues stands in the task's labels: see [`family`].

use air_nats::commit::NewTask;
use air_nats::jobs::Key;
use air_protocol::budget::Leash;
use air_protocol::fate::Outcome;
use air_protocol::job::{Change, Event, JobState};
use air_protocol::lease::Target;
use air_protocol::limits::LEASE_TTL_DEFAULT;
use air_protocol::names::JobName;
use air_protocol::task::{Fanout, Task, Work};
use air_protocol::time::Time;
use air_runner::hold::{Ours, Times, ours};
use air_runner::judge::Report;
use air_runner::look::{Found, is_due};
use air_runner::record::Claimed;
use air_runner::settle::is_same;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

use super::{Committing, Env, Flow, Swapping};
use crate::bug::Bug;
use crate::store::Write;

/// Time for which an answer that is older than what is known is asked for again.
const STALE_MAX: Duration = Duration::from_secs(5);
/// Label of a task that queues these sub-tasks when it succeeds: `a,k/b`.
pub const QUEUES: &str = "queues";
/// Label: the sub-tasks that fit into one batch.
pub const PAGE: &str = "page";

/// A runner, as far as it is.
#[derive(Debug, Clone)]
pub struct Runner {
    /// The job.
    pub job: JobName,
    /// Its id.
    pub run: Uuid,
    /// Revision of the claim.
    pub fence: u64,
    /// The attempt.
    pub target: Target,
    /// When the manager claimed.
    pub claimed: Time,
    /// The key as it last knew it.
    pub held: JobState,
    /// Its revision.
    pub revision: u64,
    /// When the lease was last renewed; heeded only where `timed`.
    pub renewed: Time,
    /// What it found before the program ran.
    pub found: Option<Arc<Found>>,
    /// Whether it heeds the end of its lease by the clock.
    pub timed: bool,
    /// The next request.
    pub stage: Stage,
}

/// The next request.
#[derive(Debug, Clone)]
pub enum Stage {
    /// Starts under the claim.
    Start(Swapping),
    /// Reads message and record.
    Look,
    /// The program runs.
    Run,
    /// Commits.
    Commit(Committing),
    /// The commit was refused: reads the record that did it.
    Over(Committing),
    /// Gives the lease back, naming this record.
    Release(Swapping, u64),
    /// The release was refused: reads the key.
    Reread(u64),
}

/// How a program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Exit 0.
    Succeed,
    /// Any other end.
    Fail,
    /// Exit 75.
    Later,
    /// Exit 0, with a bad line in `AIR_TASKS`.
    Bad,
}

impl Runner {
    /// A runner as its manager starts it, with the state of the claim handed over.
    pub fn new(job: JobName, state: JobState, fence: u64, target: Target) -> Self {
        let lease = state.lease();
        Self {
            run: lease.map_or(Uuid::nil(), |lease| lease.runner),
            claimed: lease.map_or(Time::default(), |lease| lease.claimed),
            stage: Stage::Start(Swapping::new(state.clone(), fence)),
            renewed: state.updated,
            job,
            fence,
            target,
            held: state,
            revision: fence,
            found: None,
            timed: false,
        }
    }

    /// Whether it has started, and its program runs.
    pub fn runs(&self) -> bool {
        matches!(self.stage, Stage::Run)
    }

    /// Whether it may still commit.
    pub fn may_commit(&self) -> bool {
        matches!(self.stage, Stage::Look | Stage::Run | Stage::Commit(_))
    }

    /// Whether the lease is not surely its own any more.
    pub fn is_late(&self, now: Time) -> bool {
        let ttl = self
            .held
            .lease()
            .map_or(LEASE_TTL_DEFAULT, |lease| lease.ttl.0);
        self.timed && now.since(self.renewed) >= Times::of_ttl(ttl).usable
    }

    /// One request; while the program runs, its end.
    pub fn step(&mut self, env: &mut Env<'_>, ending: Ending) -> Flow {
        match std::mem::replace(&mut self.stage, Stage::Look) {
            Stage::Start(swapping) => self.start(env, swapping),
            Stage::Look => self.look(env),
            Stage::Run => self.end(env, ending),
            Stage::Commit(committing) => self.commit(env, committing),
            Stage::Over(committing) => {
                let record = &committing.commit.record;
                let last = env.store.last_record(&self.job, &record.task);
                if let Some((_, last)) = last.as_ref().filter(|(_, last)| is_same(last, record)) {
                    self.committed(env, last.status == air_protocol::record::Status::Succeeded);
                }
                self.release(env, last.map_or(0, |(seq, _)| seq))
            }
            Stage::Release(mut swapping, record) => match swapping.step(env, &self.job) {
                None => self.at(Stage::Release(swapping, record)),
                Some(None) => self.at(Stage::Reread(record)),
                Some(Some(_)) => Flow::Ends,
            },
            Stage::Reread(record) => {
                if self.heed(env).is_none() {
                    return Flow::Ends;
                }
                self.release(env, record)
            }
        }
    }

    fn at(&mut self, stage: Stage) -> Flow {
        self.stage = stage;
        Flow::Goes
    }

    fn start(&mut self, env: &mut Env<'_>, mut swapping: Swapping) -> Flow {
        if !swapping.unsure {
            let event = Event::Start {
                runner: self.run,
                fence: self.fence,
                host: host(self.run),
            };
            let Ok(Change::To(next)) = self.held.apply(&event, env.now) else {
                return Flow::Ends;
            };
            swapping = Swapping::new(*next, self.fence);
        }
        if env.bug == Some(Bug::StartWithoutFence) {
            swapping.expected = None;
        }
        match swapping.step(env, &self.job) {
            None => self.at(Stage::Start(Swapping {
                unsure: true,
                ..swapping
            })),
            Some(None) => Flow::Ends,
            Some(Some(revision)) => {
                self.held = swapping.state().clone();
                self.revision = revision;
                self.renewed = env.now;
                self.at(Stage::Look)
            }
        }
    }

    fn look(&mut self, env: &mut Env<'_>) -> Flow {
        let last = env.store.last_record(&self.job, &self.target.task);
        let seq = last.as_ref().map_or(0, |(seq, _)| *seq);
        let patient = self.timed && env.now.since(self.renewed) < STALE_MAX;
        if seq < self.target.expected && patient {
            // Older than what the claim has seen: asked for again.
            return self.at(Stage::Look);
        }
        let queued = env.store.queued_at(&self.job, self.target.seq);
        match queued.filter(|queued| is_due(&self.target, queued, seq)) {
            Some(queued) => {
                let spec = env.store.spec(&self.job).unwrap_or_default();
                self.found = Some(Arc::new(Found { queued, last, spec }));
                self.at(Stage::Run)
            }
            None => self.release(env, seq),
        }
    }

    /// The program ends: from here on its result stands.
    fn end(&mut self, env: &mut Env<'_>, ending: Ending) -> Flow {
        let task = self
            .found
            .as_ref()
            .and_then(|found| found.queued.task.as_ref().ok());
        let pages = task.is_some_and(|task| matches!(task.work, Work::Fanout(_)));
        let outcome = match ending {
            // The rest of a fan-out has no program that could fail.
            _ if pages => Outcome::Succeeded,
            Ending::Succeed => Outcome::Succeeded,
            Ending::Fail => Outcome::Failed,
            Ending::Later => Outcome::Later(None),
            Ending::Bad => Outcome::FailedForGood,
        };
        self.report(env, outcome)
    }

    fn report(&mut self, env: &mut Env<'_>, outcome: Outcome) -> Flow {
        let Some(found) = self.found.clone() else {
            return Flow::Ends;
        };
        let mut report = Report::new(outcome);
        report.started = Some(env.now);
        match &found.queued.task {
            Err(_) => report = report.instead(Outcome::FailedForGood, "no valid task"),
            Ok(task) if outcome == Outcome::Succeeded => self.family(env, task, &mut report),
            Ok(_) => {}
        }
        let host = host(self.run);
        let claimed = Claimed {
            job: &self.job,
            runner: self.run,
            fence: self.fence,
            released: 0,
            host: &host,
            target: &self.target,
            claimed: self.claimed,
            backend: "process",
        };
        let mut commit = claimed.commit_of(&found, &report, env.now);
        if env.bug == Some(Bug::TwoTimers) {
            twice(&mut commit.with);
        }
        if env.bug == Some(Bug::DeleteBeforeCommit) {
            env.store.apply(&Write::Delete(self.target.seq), env.now);
        }
        self.at(Stage::Commit(Committing::new(commit)))
    }

    /// What the task queues, as its labels say. Pages are cut as in `runner/src/subtasks.rs`, where only
    /// their size is another.
    fn family(&self, env: &mut Env<'_>, task: &Task, report: &mut Report) {
        if let Work::Fanout(fanout) = &task.work {
            match env.store.pages.get(&(fanout.run, fanout.page)) {
                Some(page) => {
                    report.family.tasks = page.as_ref().clone();
                    if fanout.page + 1 < fanout.pages {
                        let page = fanout.page + 1;
                        report.family.tasks.push(self.rest(Fanout {
                            page,
                            ..fanout.clone()
                        }));
                    }
                }
                None => report.outcome = Outcome::Later(None),
            }
            return;
        }
        let all = family(&self.job, &self.target, task);
        let mut jobs: Vec<_> = all.iter().map(|new| new.job.clone()).collect();
        jobs.retain(|job| *job != self.job);
        jobs.dedup();
        report.family.count = all.len() as u64;
        report.family.jobs = jobs;
        let size = task
            .labels
            .get(PAGE)
            .and_then(|text| text.parse().ok())
            .unwrap_or(all.len());
        let mut pages = all.chunks(size.max(1)).map(<[NewTask]>::to_vec);
        report.family.tasks = pages.next().unwrap_or_default();
        let rest: Vec<_> = pages.collect();
        if rest.is_empty() {
            return;
        }
        let fanout = Fanout {
            run: self.run,
            parent: format!("{}/{}", self.job, self.target.task),
            page: 1,
            pages: u32::try_from(rest.len()).unwrap_or(u32::MAX) + 1,
        };
        for (number, page) in (1..).zip(rest) {
            env.store.pages.insert((self.run, number), page.into());
        }
        report.family.tasks.push(self.rest(fanout));
    }

    fn rest(&self, fanout: Fanout) -> NewTask {
        let id = format!("f{}-{}", fanout.page, fanout.parent.replace('/', "-"));
        new_task(
            &self.job,
            &id,
            Some(fanout.parent.clone()),
            Task::new(Work::Fanout(fanout)),
        )
    }

    fn commit(&mut self, env: &mut Env<'_>, mut committing: Committing) -> Flow {
        if self.is_late(env.now) {
            return Flow::Ends;
        }
        match committing.step(env) {
            None => self.at(Stage::Commit(committing)),
            Some(None) => self.at(Stage::Over(committing)),
            Some(Some(seq)) => {
                let status = committing.commit.record.status;
                self.committed(env, status == air_protocol::record::Status::Succeeded);
                self.release(env, seq)
            }
        }
    }

    /// A page that is queued is deleted.
    fn committed(&self, env: &mut Env<'_>, succeeded: bool) {
        let task = env
            .store
            .queued_at(&self.job, self.target.seq)
            .and_then(|queued| queued.task.ok());
        if let Some(Work::Fanout(fanout)) = task.map(|task| task.work)
            && succeeded
        {
            env.store.pages.remove(&(fanout.run, fanout.page));
        }
    }

    fn release(&mut self, env: &Env<'_>, record: u64) -> Flow {
        let event = Event::Release {
            runner: self.run,
            record,
        };
        match self.held.apply(&event, env.now) {
            Ok(Change::To(next)) => {
                self.at(Stage::Release(Swapping::new(*next, self.revision), record))
            }
            Ok(Change::NoOp) | Err(_) => Flow::Ends,
        }
    }

    /// Takes in what the key holds; none when the lease is not its own any more.
    fn heed(&mut self, env: &Env<'_>) -> Option<Ours> {
        let key = env.store.key(&self.job);
        let ours = ours(&key, self.run, self.fence)?;
        if let Key::State(state, revision) = key {
            self.held = *state;
            self.revision = revision;
        }
        Some(ours)
    }

    /// Looks at the key and at the record while the program runs.
    pub fn notice(&mut self, env: &mut Env<'_>) -> Flow {
        let Some(ours) = self.heed(env) else {
            return Flow::Ends;
        };
        let last = env.store.last_record(&self.job, &self.target.task);
        let seq = last.map_or(0, |(seq, _)| seq);
        match ours {
            Ours::Stopping => self.report(env, Outcome::Cancelled),
            Ours::Running if seq > self.target.expected => self.release(env, seq),
            Ours::Running => Flow::Goes,
        }
    }

    /// Renews the lease; an answer that is not heard renews nothing.
    pub fn renew(&mut self, env: &mut Env<'_>) -> Flow {
        let event = Event::Renew { runner: self.run };
        let Ok(Change::To(next)) = self.held.apply(&event, env.now) else {
            return Flow::Ends;
        };
        let mut swapping = Swapping::new(*next, self.revision);
        if let Some(Some(revision)) = swapping.step(env, &self.job) {
            self.held = swapping.state().clone();
            self.revision = revision;
            self.renewed = env.now;
        }
        self.notice(env)
    }
}

/// Both timers: the next attempt at once, and after its back-off.
fn twice(with: &mut Vec<air_nats::commit::With>) {
    use air_nats::commit::With;
    let again = with.iter().find_map(|one| match one {
        With::Schedule(new, _) => Some(With::Task(new.clone())),
        With::Task(_) | With::Unschedule => None,
    });
    with.extend(again);
}

/// One host for each runner, since hosts share no clock.
fn host(run: Uuid) -> String {
    format!("h{}", run.as_u128() >> 8)
}

/// The sub-tasks that a task queues, as its labels say.
pub fn family(job: &JobName, target: &Target, task: &Task) -> Vec<NewTask> {
    let parent = format!("{job}/{}", target.task);
    let names = task.labels.get(QUEUES).map_or("", String::as_str);
    let names = names.split(',').filter(|name| !name.is_empty());
    let new = |name: &str| {
        let (job, id) = match name.split_once('/') {
            Some((other, id)) => (other.parse().unwrap_or_else(|_| job.clone()), id),
            None => (job.clone(), name),
        };
        new_task(
            &job,
            id,
            Some(parent.clone()),
            Task::new(Work::Run("true".into())),
        )
    };
    names.map(new).collect()
}

#[allow(clippy::expect_used, reason = "ids of the model are ids")]
fn new_task(job: &JobName, id: &str, parent: Option<String>, task: Task) -> NewTask {
    NewTask {
        job: job.clone(),
        id: id.parse().expect("an id"),
        task,
        attempt: 1,
        parent,
        leash: Leash::default(),
        traceparent: None,
    }
}
