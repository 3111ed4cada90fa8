//! What each event does to the processes: their requests, the ends of programs, the faults.

use std::sync::Arc;

use air_protocol::names::JobName;
use air_protocol::record::is_live;
use air_protocol::task::Work;
use air_runner::hold::Times;
use uuid::Uuid;

use super::{Event, Process, World};
use crate::actor::look::Next;
use crate::actor::recover::Recover;
use crate::actor::runner::{Ending, Runner};
use crate::actor::user::Deed;
use crate::actor::{Env, Flow, Reply};
use crate::bug::Bug;
use crate::simulation::manager::Memory;
use crate::simulation::plan::Fault;
use crate::store::{Deposed, Write, queued};

impl World {
    /// What becomes of the answer to the next write.
    fn reply(&mut self) -> Reply {
        if self.lossy <= self.now || !self.dice.chance(300) {
            return Reply::Heard;
        }
        if self.dice.chance(500) {
            Reply::Lost
        } else {
            Reply::Late
        }
    }

    /// Does something with what surrounds one request; gives its answer, and who was spawned.
    fn with_env<T>(
        &mut self,
        reads_only: bool,
        act: impl FnOnce(&mut Env<'_>) -> T,
    ) -> (T, Vec<Runner>) {
        let reply = self.reply();
        let lags = reads_only && self.lagging > self.now && self.dice.chance(500);
        let behind = 1 + self.dice.below(3);
        let replica = lags.then(|| {
            let last = self.store.air.last_seq();
            self.store.air.up_to(last.saturating_sub(behind))
        });
        if let Some((until, deposed)) = self.deposed.clone() {
            if until <= self.now {
                self.deposed = None;
            } else if self.dice.chance(300) {
                self.store.deposed = Some(deposed);
            }
        }
        let refuse_start = self.lossy > self.now && self.dice.chance(100);
        let now = self.time();
        let mut env = Env {
            store: &mut self.store,
            replica,
            now,
            reply,
            bug: self.bug,
            runs: &mut self.runs,
            spawned: Vec::new(),
            refuse_start,
        };
        let done = act(&mut env);
        let spawned = std::mem::take(&mut env.spawned);
        self.store.deposed = None;
        (done, spawned)
    }

    pub(super) fn step(&mut self, id: u64) {
        match self.wakes(id) {
            None => return,
            Some(until) if until > self.now => return self.at(until + 1, Event::Step(id)),
            Some(_) => {}
        }
        match self.processes.remove(&id) {
            None => {}
            Some(Process::Look(index, mut look)) => {
                let mut waits = std::mem::take(&mut self.managers[index].waits);
                // A cancel lists only from a replica that has seen what the leader had.
                let spared = self.bug != Some(Bug::CancelListsFromAReplica);
                let lists = spared && matches!(&look.next, Next::Empty(_));
                let (flow, spawned) = self.with_env(!lists, |env| look.step(env, &mut waits));
                self.managers[index].waits = waits;
                for runner in spawned {
                    self.spawn(index, runner);
                }
                if flow == Flow::Goes {
                    self.processes.insert(id, Process::Look(index, look));
                    return self.soon(Event::Step(id));
                }
                let (now, instant) = (self.time(), self.instant());
                self.managers[index].on_looked(*look, now, instant);
                self.start_looks(index);
            }
            Some(Process::Recover(index, mut recover)) => {
                self.step_recover(id, index, &mut recover)
            }
            Some(Process::Runner(index, mut runner)) => {
                let (flow, _) = self.with_env(false, |env| runner.step(env, Ending::Succeed));
                self.runner_goes_on(id, index, runner, flow);
            }
            Some(Process::User(mut user)) => {
                let (flow, _) = self.with_env(false, |env| user.step(env));
                match &user.deed {
                    Deed::Publish(task) => {
                        if let Ok(task) = task.as_ref() {
                            let id = task.id_at(self.store.air.last_seq());
                            self.acknowledged.insert((user.job.clone(), id));
                        }
                    }
                    Deed::Remove => drop(self.removed.insert(user.job.clone())),
                    _ => {}
                }
                if flow == Flow::Goes {
                    self.processes.insert(id, Process::User(user));
                    self.soon(Event::Step(id));
                }
            }
        }
    }

    fn step_recover(&mut self, id: u64, index: usize, recover: &mut Recover) {
        let (flow, _) = self.with_env(false, |env| recover.step(env));
        if flow == Flow::Goes {
            let recover = Box::new(recover.clone());
            self.processes.insert(id, Process::Recover(index, recover));
            return self.soon(Event::Step(id));
        }
        self.managers[index].recovering.remove(&recover.job);
    }

    fn spawn(&mut self, index: usize, mut runner: Runner) {
        runner.timed = true;
        let (task, attempt) = (&runner.target.task, runner.target.attempt);
        self.tell(format!(
            "m{index} starts {}/{task} attempt {attempt}",
            runner.job
        ));
        self.start(Process::Runner(index, Box::new(runner)));
    }

    fn runner_goes_on(&mut self, id: u64, index: usize, runner: Box<Runner>, flow: Flow) {
        if flow == Flow::Ends {
            return self.runner_is_gone(index, runner.run);
        }
        if runner.runs() {
            let long = if self.dice.chance(100) { 60_000 } else { 3000 };
            let ends = self.now + 5 + self.dice.below(long);
            let every = every(&runner);
            self.at(ends, Event::Ends(id));
            self.at(self.now + every, Event::Renew(id));
        } else {
            self.soon(Event::Step(id));
        }
        self.processes.insert(id, Process::Runner(index, runner));
    }

    /// The manager that started a runner sees its process end.
    fn runner_is_gone(&mut self, index: usize, run: Uuid) {
        if self.frozen[index] > self.now {
            return;
        }
        if let Some(suspect) = self.managers[index].leases.of_runner(run) {
            self.recover(index, suspect.job, suspect.revision);
        }
    }

    fn running(&mut self, id: u64, again: Event) -> Option<(usize, Box<Runner>)> {
        let asleep = self.asleep.get(&id).copied().unwrap_or(0);
        match self.processes.get(&id) {
            Some(Process::Runner(_, runner)) if runner.runs() => {}
            _ => return None,
        }
        if asleep > self.now {
            self.at(asleep + 1, again);
            return None;
        }
        match self.processes.remove(&id) {
            Some(Process::Runner(index, runner)) => {
                if runner.is_late(self.time()) {
                    // The guard has ended the program: nothing is written under this lease any more.
                    self.runner_is_gone(index, runner.run);
                    return None;
                }
                Some((index, runner))
            }
            _ => None,
        }
    }

    pub(super) fn program_ends(&mut self, id: u64) {
        let Some((index, mut runner)) = self.running(id, Event::Ends(id)) else {
            return;
        };
        let ending = match self.dice.below(20) {
            0..=13 => Ending::Succeed,
            14..=17 => Ending::Fail,
            18 => Ending::Later,
            _ => Ending::Bad,
        };
        let (flow, _) = self.with_env(false, |env| runner.step(env, ending));
        self.runner_goes_on(id, index, runner, flow);
    }

    pub(super) fn renew(&mut self, id: u64) {
        let Some((index, mut runner)) = self.running(id, Event::Renew(id)) else {
            return;
        };
        if self.down > self.now {
            self.at(self.now + 200, Event::Renew(id));
            self.processes.insert(id, Process::Runner(index, runner));
            return;
        }
        let (flow, _) = self.with_env(false, |env| runner.renew(env));
        match flow {
            Flow::Ends => self.runner_is_gone(index, runner.run),
            Flow::Goes => {
                let next = if runner.runs() {
                    Event::Renew(id)
                } else {
                    Event::Step(id)
                };
                let wait = if runner.runs() { every(&runner) } else { 1 };
                self.at(self.now + wait, next);
                self.processes.insert(id, Process::Runner(index, runner));
            }
        }
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        self.tell(format!("fault: {fault:?}"));
        match fault {
            Fault::Manager(index) => self.manager_dies(index),
            Fault::Runner(number) => {
                if let Some((id, index, run)) = self.one_runner(number) {
                    self.processes.remove(&id);
                    self.runner_is_gone(index, run);
                }
            }
            Fault::Freeze(number, span) => {
                if let Some((id, ..)) = self.one_runner(number) {
                    self.asleep.insert(id, self.now + span);
                }
            }
            Fault::Stall(index, span) => {
                if let Some(frozen) = self.frozen.get_mut(index) {
                    *frozen = self.now + span;
                }
            }
            Fault::Election(span) => self.elect(span),
            Fault::Lossy(span) => self.lossy = self.now + span,
            Fault::Lag(span) => self.lagging = self.now + span,
            Fault::Deaf(index, span) => {
                if let Some(deaf) = self.deaf.get_mut(index) {
                    // The poll finds a watch that hangs.
                    *deaf = self.now + span.min(10_000);
                }
            }
            Fault::Lose(number) => self.lose(number),
        }
    }

    /// Deletes what brings back one of the tasks that are to be tried again.
    fn lose(&mut self, number: u64) {
        let mut messages = Vec::new();
        for stored in self.store.air.all() {
            let job = stored.subject.split('.').nth(2).map(str::parse::<JobName>);
            let (Some(Ok(job)), Some(message)) = (job, queued(stored)) else {
                continue;
            };
            let last = self.store.last_record(&job, &message.id);
            let last = last.map(|(seq, record)| record.last(seq));
            if last.is_some() && is_live(message.attempt, last) {
                messages.push((job, message));
            }
        }
        let index = usize::try_from(number).unwrap_or(0);
        let Some(index) = index.checked_rem(messages.len()) else {
            return;
        };
        let (job, task) = (messages[index].0.clone(), messages[index].1.id.clone());
        self.tell(format!("{job}/{task} loses its message"));
        for (_, message) in messages
            .iter()
            .filter(|one| (&one.0, &one.1.id) == (&job, &task))
        {
            self.store.air.delete(message.seq);
            // With the rest of a family goes, for now, what its parent queued.
            if let Ok(Work::Fanout(fanout)) = message.task.as_ref().map(|task| &task.work)
                && let Some((job, task)) = fanout.parent.split_once('/')
                && let (Ok(job), Ok(task)) = (job.parse(), task.parse())
            {
                self.robbed.insert((job, task));
            }
        }
        self.robbed.insert((job, task));
    }

    /// Nobody answers for a while; the leader that was may answer old reads a while longer.
    fn elect(&mut self, span: u64) {
        self.down = self.now + span;
        let old = Deposed {
            air: self.store.air.clone(),
            jobs: self.store.jobs.clone(),
        };
        self.deposed = Some((self.now + 2 * span, Arc::new(old)));
        let now = self.instant();
        for manager in &mut self.managers {
            manager.leases.link(false, now);
            manager
                .leases
                .link(true, now + std::time::Duration::from_millis(span));
        }
    }

    fn manager_dies(&mut self, index: usize) {
        if index >= self.managers.len() {
            return;
        }
        let owns = |process: &Process| match process {
            Process::Look(owner, _) | Process::Recover(owner, _) => *owner == index,
            Process::Runner(..) | Process::User(_) => false,
        };
        self.processes.retain(|_, process| !owns(process));
        self.generation += 1;
        let id = format!("m{index}-{}", self.generation);
        self.managers[index] = Memory::new(id, self.instant());
        self.frozen[index] = 0;
        let jobs: Vec<JobName> = self
            .store
            .jobs
            .all()
            .iter()
            .filter_map(|one| one.subject.parse().ok())
            .collect();
        for job in jobs {
            self.soon(Event::Watch(index, job));
        }
    }

    fn one_runner(&self, number: u64) -> Option<(u64, usize, Uuid)> {
        let runners = self
            .processes
            .iter()
            .filter_map(|(id, process)| match process {
                Process::Runner(index, runner) => Some((*id, *index, runner.run)),
                Process::Look(..) | Process::Recover(..) | Process::User(_) => None,
            });
        let runners: Vec<_> = runners.collect();
        let index = usize::try_from(number).ok()?.checked_rem(runners.len())?;
        runners.get(index).copied()
    }
}

/// Milliseconds between two renewals.
fn every(runner: &Runner) -> u64 {
    let ttl = runner
        .held
        .lease()
        .map(|lease| lease.ttl.0)
        .unwrap_or_default();
    u64::try_from(Times::of_ttl(ttl).every.as_millis()).unwrap_or(10_000)
}

/// A write in a few words.
pub(super) fn short(write: &Write) -> String {
    match write {
        Write::Key(job, _, expected) => format!("key {job} expecting {expected:?}"),
        Write::Erase(job, revision) => format!("erase {job} up to {revision}"),
        Write::Commit(commit, _) => {
            let record = &commit.record;
            format!(
                "{} {}/{} after {}",
                record.status.as_str(),
                commit.job,
                record.task,
                record.after
            )
        }
        Write::Again(with, last) => format!("again after {last}: {with:?}"),
        Write::Delete(seq) => format!("delete {seq}"),
        Write::Purge(filter, up_to) => format!("purge {filter} up to {up_to}"),
    }
}

/// A deed in a few words.
pub(super) fn words(deed: &Deed) -> String {
    match deed {
        Deed::Publish(task) => match task.as_ref() {
            Ok(task) => {
                let id = task
                    .id
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                let needs: Vec<_> = task.needs.iter().map(ToString::to_string).collect();
                format!("publish {id} needs {needs:?} labels {:?}", task.labels)
            }
            Err(_) => "publish what is no task".to_owned(),
        },
        other => format!("{other:?}"),
    }
}
