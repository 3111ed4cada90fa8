//! One run: the events in the order of their times, and what each does.

mod steps;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use air_protocol::invariants::{Invariant, Violation, check_all};
use air_protocol::job::JobStatus;
use air_protocol::names::{JobName, TaskId};
use air_protocol::record::is_live;
use air_protocol::time::Time;

use super::manager::Memory;
use super::plan::{Dice, Plan, TROUBLE};
use super::{Failure, Run};
use crate::actor::look::Look;
use crate::actor::recover::Recover;
use crate::actor::runner::Runner;
use crate::actor::user::{Deed, User};
use crate::bug::Bug;
use crate::history::{Known, history};
use crate::search::world::BEGIN;
use crate::store::{Deposed, Store, Write};

const TICK: u64 = 250;
const POLL: u64 = 5000;
/// Virtual time after the trouble in which everything must end.
const END_WITHIN: u64 = 3_600_000;
/// Events of one run; more than any needs.
const EVENTS_MAX: u64 = 2_000_000;
/// Events between two looks at the invariants.
const CHECK_EVERY: u64 = 40;
const LOG_MAX: usize = 40;

#[derive(Debug, Clone)]
enum Event {
    Step(u64),
    Ends(u64),
    Renew(u64),
    Tick(usize),
    Poll(usize),
    Watch(usize, JobName),
    Wake(usize, JobName),
    Arrives(Box<Write>),
    Fires(u64),
    Task(usize),
    Deed(usize),
    Fault(usize),
}

#[derive(Debug)]
enum Process {
    Look(usize, Box<Look>),
    Recover(usize, Box<Recover>),
    Runner(usize, Box<Runner>),
    User(Box<User>),
}

/// A run.
#[derive(Debug)]
pub(super) struct World {
    plan: Plan,
    bug: Option<Bug>,
    dice: Dice,
    store: Store,
    now: u64,
    begun: Instant,
    events: BTreeMap<(u64, u64), Event>,
    count: u64,
    done: u64,
    managers: Vec<Memory>,
    frozen: Vec<u64>,
    deaf: Vec<u64>,
    processes: BTreeMap<u64, Process>,
    asleep: BTreeMap<u64, u64>,
    scheduled: BTreeSet<u64>,
    queued_to: u64,
    keys_to: u64,
    lossy: u64,
    lagging: u64,
    down: u64,
    deposed: Option<(u64, Arc<Deposed>)>,
    runs: u128,
    generation: u64,
    acknowledged: BTreeSet<(JobName, TaskId)>,
    removed: BTreeSet<JobName>,
    /// Tasks whose message somebody deleted.
    robbed: BTreeSet<(JobName, TaskId)>,
    log: VecDeque<String>,
    trace: DefaultHasher,
}

impl World {
    pub(super) fn new(plan: Plan, bug: Option<Bug>) -> Self {
        let begun = Instant::now();
        let memory = |index: usize| Memory::new(format!("m{index}"), begun);
        let mut world = Self {
            dice: Dice::new(plan.seed ^ 0x5eed),
            bug,
            store: Store::default(),
            now: 0,
            begun,
            events: BTreeMap::new(),
            count: 0,
            done: 0,
            managers: (0..plan.managers).map(memory).collect(),
            frozen: vec![0; plan.managers],
            deaf: vec![0; plan.managers],
            processes: BTreeMap::new(),
            asleep: BTreeMap::new(),
            scheduled: BTreeSet::new(),
            queued_to: 0,
            keys_to: 0,
            lossy: 0,
            lagging: 0,
            down: 0,
            deposed: None,
            runs: 1,
            generation: 0,
            acknowledged: BTreeSet::new(),
            removed: BTreeSet::new(),
            robbed: BTreeSet::new(),
            log: VecDeque::new(),
            trace: DefaultHasher::new(),
            plan,
        };
        world.fill();
        world
    }

    fn fill(&mut self) {
        let plan = self.plan.clone();
        for (index, (at, ..)) in plan.tasks.iter().enumerate() {
            self.at(*at, Event::Task(index));
        }
        for (index, (at, ..)) in plan.deeds.iter().enumerate() {
            self.at(*at, Event::Deed(index));
        }
        for (index, (at, _)) in plan.faults.iter().enumerate() {
            self.at(*at, Event::Fault(index));
        }
        for index in 0..plan.managers {
            let (tick, poll) = (self.dice.below(TICK), self.dice.below(POLL));
            self.at(tick, Event::Tick(index));
            self.at(poll, Event::Poll(index));
        }
    }

    fn at(&mut self, at: u64, event: Event) {
        self.count += 1;
        self.events.insert((at.max(self.now), self.count), event);
    }

    fn soon(&mut self, event: Event) {
        let slow = if self.now < TROUBLE && self.dice.chance(4) {
            15_000
        } else {
            8
        };
        let at = self.now + 1 + self.dice.below(slow);
        self.at(at, event);
    }

    fn time(&self) -> Time {
        BEGIN.after(Duration::from_millis(self.now))
    }

    fn instant(&self) -> Instant {
        self.begun + Duration::from_millis(self.now)
    }

    pub(super) fn run(mut self) -> Result<Run, Failure> {
        while let Some(((at, _), event)) = self.events.pop_first() {
            self.now = at;
            self.done += 1;
            // Not at a poll, which has managers look at everything.
            let is_pause = matches!(event, Event::Tick(0)) && self.processes.is_empty();
            if !matches!(event, Event::Tick(_) | Event::Poll(_)) {
                let text = format!("{event:?}");
                text.hash(&mut self.trace);
                at.hash(&mut self.trace);
            }
            self.happen(event);
            self.follow();
            if self.done.is_multiple_of(CHECK_EVERY) {
                self.check(false)?;
            }
            if is_pause && self.now > TROUBLE + 60_000 {
                match self.is_over() {
                    Ok(()) => return self.ended(),
                    Err(text) if self.now > TROUBLE + END_WITHIN => return Err(self.fail(text)),
                    Err(_) => {}
                }
            }
            if self.done > EVENTS_MAX || self.now > TROUBLE + 2 * END_WITHIN {
                let left = self.processes.values().next();
                let text = self
                    .is_over()
                    .err()
                    .unwrap_or_else(|| "a process never ends".into());
                return Err(self.fail(format!("{text}; it goes on for ever: {left:?}")));
            }
        }
        Err(self.fail("nothing happens any more".to_owned()))
    }

    fn ended(self) -> Result<Run, Failure> {
        let records = self.store.air.matching("air.results.>", 0).count();
        Ok(Run {
            events: self.done,
            records: records as u64,
            ended: self.time(),
            trace: self.trace.finish(),
        })
    }

    fn fail(&self, text: String) -> Failure {
        Failure {
            at: self.time(),
            text,
            log: self.log.iter().cloned().collect(),
        }
    }

    fn tell(&mut self, text: String) {
        if self.log.len() == LOG_MAX {
            self.log.pop_front();
        }
        self.log.push_back(format!("{:>7} ms  {text}", self.now));
    }

    fn known(&self, quiet: bool) -> Known<'_> {
        Known {
            acknowledged: &self.acknowledged,
            removed: &self.removed,
            quiet,
            now: None,
        }
    }

    fn check(&self, quiet: bool) -> Result<(), Failure> {
        let violations = check_all(&history(&self.store, self.known(quiet)));
        let counts = |one: &&Violation| !self.is_robbery(one, quiet);
        match violations.iter().find(counts) {
            Some(violation) => Err(self.fail(violation.to_string())),
            None => Ok(()),
        }
    }

    /// Whether a task is lost only until a manager looks at its job, which it leaves alone where a task failed.
    fn is_robbery(&self, violation: &Violation, quiet: bool) -> bool {
        let task = violation.task.clone();
        let robbed = task.is_some_and(|task| self.robbed.contains(&(violation.job.clone(), task)));
        let state = self.store.state(&violation.job);
        let failed = state.is_some_and(|state| matches!(state.status, JobStatus::Failed { .. }));
        let about_messages = matches!(
            violation.invariant,
            Invariant::NothingLost | Invariant::WholeFamilies
        );
        about_messages && robbed && (failed || !quiet)
    }

    /// Whether everything has ended as it should.
    fn is_over(&self) -> Result<(), String> {
        self.check(true).map_err(|failure| failure.text)?;
        for (name, job) in &history(&self.store, self.known(true)).jobs {
            let last = |task: &TaskId| self.store.last_record(name, task);
            let live = job.queue.iter().chain(&job.schedules).find(|one| {
                is_live(
                    one.attempt,
                    last(&one.task).map(|(seq, record)| record.last(seq)),
                )
            });
            match job.state.as_ref().map(|state| &state.status) {
                Some(JobStatus::Failed { .. }) => continue,
                Some(JobStatus::Completed { .. } | JobStatus::Cancelled { .. }) | None => {}
                Some(JobStatus::Waiting) if self.waits_for_nobody(name) => continue,
                Some(status) => return Err(format!("{name} stays {}", status.as_str())),
            }
            if let Some(one) = live {
                return Err(format!("{name}/{} is never run", one.task));
            }
        }
        Ok(())
    }

    /// Whether each task of a queue waits for one that is not over: nobody has published it, or its job
    /// has stopped.
    fn waits_for_nobody(&self, job: &JobName) -> bool {
        let queued = self.store.queued(&self.store.air, job, 0);
        let open = |need: &air_protocol::task::Need| {
            let job = need.job.as_ref().unwrap_or(job);
            let last = self.store.last_record(job, &need.task);
            last.is_none_or(|(_, record)| !record.status.is_final())
        };
        let waits = |queued: &air_nats::queue::Queued| {
            queued
                .task
                .as_ref()
                .is_ok_and(|task| task.needs.iter().any(open))
        };
        let live = |queued: &&air_nats::queue::Queued| {
            let last = self.store.last_record(job, &queued.id);
            is_live(queued.attempt, last.map(|(seq, record)| record.last(seq)))
        };
        let mut live = queued.iter().filter(live).peekable();
        live.peek().is_some() && live.all(waits)
    }

    /// What follows from what is new in the broker: watches, wake-ups, schedules, late writes.
    fn follow(&mut self) {
        let last = self.store.jobs.last_seq();
        let changed: Vec<_> = self
            .store
            .jobs
            .all()
            .iter()
            .filter(|one| one.seq > self.keys_to)
            .collect();
        let changed: Vec<JobName> = changed
            .iter()
            .filter_map(|one| one.subject.parse().ok())
            .collect();
        self.keys_to = last;
        for job in changed {
            for index in 0..self.managers.len() {
                self.soon(Event::Watch(index, job.clone()));
            }
        }
        let new: Vec<JobName> = (self.store.air.matching("air.tasks.*", self.queued_to + 1))
            .filter_map(|one| one.subject.strip_prefix("air.tasks.")?.parse().ok())
            .collect();
        self.queued_to = self.store.air.last_seq();
        for job in new {
            let index = usize::try_from(self.dice.below(self.managers.len() as u64)).unwrap_or(0);
            if !self.dice.chance(50) {
                self.soon(Event::Wake(index, job));
            }
        }
        let due: Vec<_> = self
            .store
            .air
            .schedules()
            .filter(|(seq, _)| !self.scheduled.contains(seq))
            .collect();
        for (seq, at) in due {
            self.scheduled.insert(seq);
            let at = u64::try_from(at.since(BEGIN).as_millis()).unwrap_or(u64::MAX / 2);
            let at = at.max(self.now) + self.dice.below(250);
            self.at(at, Event::Fires(seq));
        }
        for write in std::mem::take(&mut self.store.flight) {
            let at = self.now + self.dice.below(8000);
            self.at(at, Event::Arrives(Box::new(write)));
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Step(id) => self.step(id),
            Event::Ends(id) => self.program_ends(id),
            Event::Renew(id) => self.renew(id),
            Event::Tick(index) => self.tick(index),
            Event::Poll(index) => self.poll(index),
            Event::Watch(index, job) => self.watch(index, job),
            Event::Wake(index, job) => {
                if self.frozen[index] <= self.now {
                    self.managers[index].look_for_tasks(&job);
                    self.start_looks(index);
                }
            }
            Event::Arrives(write) => {
                self.tell(format!("arrives late: {}", steps::short(&write)));
                self.store.apply(&write, self.time());
            }
            Event::Fires(seq) => drop(self.store.air.fire(seq, self.time())),
            Event::Task(index) => {
                let (_, job, task) = self.plan.tasks[index].clone();
                self.user(job, Deed::Publish(Box::new(task)));
            }
            Event::Deed(index) => {
                let (_, job, deed) = self.plan.deeds[index].clone();
                self.user(job, deed);
            }
            Event::Fault(index) => self.fault(self.plan.faults[index].1),
        }
    }

    fn user(&mut self, job: JobName, deed: Deed) {
        self.tell(format!("user: {job}: {}", steps::words(&deed)));
        self.start(Process::User(Box::new(User::new(job, deed))));
    }

    fn start(&mut self, process: Process) -> u64 {
        self.generation += 1;
        let id = self.generation;
        self.processes.insert(id, process);
        self.soon(Event::Step(id));
        id
    }

    fn watch(&mut self, index: usize, job: JobName) {
        let until = self.frozen[index].max(self.deaf[index]);
        if until > self.now {
            self.at(until, Event::Watch(index, job));
            return;
        }
        let key = self.store.key(&job);
        let now = self.instant();
        self.managers[index].on_job(&job, key, now);
        self.start_looks(index);
    }

    fn tick(&mut self, index: usize) {
        self.at(self.now + TICK, Event::Tick(index));
        if self.frozen[index] > self.now {
            return;
        }
        let now = self.instant();
        for other in 0..self.managers.len() {
            if self.frozen[other] <= self.now && self.down <= self.now {
                let id = self.managers[other].me.id.clone();
                self.managers[index].leases.heard(&id, now);
            }
        }
        self.managers[index].agenda.tick(now);
        for suspect in self.managers[index].suspects(now) {
            self.recover(index, suspect.job, suspect.revision);
        }
        self.start_looks(index);
    }

    fn poll(&mut self, index: usize) {
        self.at(self.now + POLL, Event::Poll(index));
        if self.frozen[index] <= self.now && self.down <= self.now {
            self.managers[index].poll(&self.store);
            self.start_looks(index);
        }
    }

    fn start_looks(&mut self, index: usize) {
        while let Some(look) = self.managers[index].next_look() {
            self.start(Process::Look(index, Box::new(look)));
        }
    }

    fn recover(&mut self, index: usize, job: JobName, revision: u64) {
        let manager = &mut self.managers[index];
        if manager.recovering.insert(job.clone()) {
            let by = manager.me.id.clone();
            self.tell(format!("m{index} judges the holder of {job} dead"));
            let recover = Recover::new(job, revision, by);
            self.start(Process::Recover(index, Box::new(recover)));
        }
    }

    /// When a process may go on: not while it, or its manager, is frozen.
    fn wakes(&self, id: u64) -> Option<u64> {
        let owner = match self.processes.get(&id)? {
            Process::Look(index, _) | Process::Recover(index, _) => self.frozen[*index],
            Process::Runner(..) => self.asleep.get(&id).copied().unwrap_or(0),
            Process::User(_) => 0,
        };
        Some(owner.max(self.down))
    }
}
