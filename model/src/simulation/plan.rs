//! What happens in one run, made from a seed: tasks, deeds of users, faults. Each can be left out.

use air_protocol::names::JobName;
use air_protocol::task::Task;

use crate::actor::runner::{PAGE, QUEUES};
use crate::actor::user::Deed;
use crate::search::scenario;

/// A source of numbers that is the same for the same seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end.max(1)
    }

    /// Whether something of this many in a thousand happens.
    pub fn chance(&mut self, thousandths: u64) -> bool {
        self.below(1000) < thousandths
    }
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A manager dies, and another one starts in its place.
    Manager(usize),
    /// One of the runners that live dies.
    Runner(u64),
    /// One of the runners that live is frozen for so many milliseconds.
    Freeze(u64, u64),
    /// A manager is frozen for so many milliseconds.
    Stall(usize, u64),
    /// The broker elects a leader for so many milliseconds, and the old one answers reads for as long again.
    Election(u64),
    /// For so many milliseconds answers are lost, and writes arrive late.
    Lossy(u64),
    /// For so many milliseconds replicas lag.
    Lag(u64),
    /// A manager hears of no change of a key for so many milliseconds.
    Deaf(usize, u64),
    /// Somebody deletes the message of one of the tasks that are to be tried again.
    Lose(u64),
}

/// One run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed, which also decides delays and ends of programs.
    pub seed: u64,
    /// Managers.
    pub managers: usize,
    /// Tasks: when, for which job, what.
    pub tasks: Vec<(u64, JobName, Result<Task, String>)>,
    /// Deeds of users: when, of which job, what.
    pub deeds: Vec<(u64, JobName, Deed)>,
    /// Faults: when, what.
    pub faults: Vec<(u64, Fault)>,
}

/// Milliseconds in which tasks are published and faults happen.
pub const TROUBLE: u64 = 120_000;

impl Plan {
    /// The run of a seed.
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let managers = 1 + usize::try_from(dice.below(3)).unwrap_or(0);
        let jobs: Vec<JobName> = ["j", "k", "l"]
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        let count = 1 + dice.below(8);
        let tasks = (0..count)
            .map(|number| task(&mut dice, &jobs, number))
            .collect();
        let deeds = (0..dice.below(4))
            .map(|_| deed(&mut dice, &jobs, count))
            .collect();
        let mut faults: Vec<_> = (0..dice.below(10))
            .map(|_| fault(&mut dice, managers))
            .collect();
        // After all else, which stays what it was.
        faults.extend((0..dice.below(4)).map(|_| {
            let at = dice.below(TROUBLE);
            (at, Fault::Lose(dice.below(100)))
        }));
        Self {
            seed,
            managers,
            tasks,
            deeds,
            faults,
        }
    }

    /// Runs with one thing less.
    pub fn smaller(&self) -> Vec<Self> {
        let mut all = Vec::new();
        for index in 0..self.faults.len() {
            let mut plan = self.clone();
            plan.faults.remove(index);
            all.push(plan);
        }
        for index in 0..self.deeds.len() {
            let mut plan = self.clone();
            plan.deeds.remove(index);
            all.push(plan);
        }
        for index in 0..self.tasks.len() {
            let mut plan = self.clone();
            drop(plan.tasks.remove(index));
            all.push(plan);
        }
        if self.managers > 1 {
            let mut plan = self.clone();
            plan.managers -= 1;
            all.push(plan);
        }
        all
    }
}

fn pick<'a>(dice: &mut Dice, jobs: &'a [JobName]) -> &'a JobName {
    let index = usize::try_from(dice.below(jobs.len() as u64)).unwrap_or(0);
    &jobs[index]
}

fn task(dice: &mut Dice, jobs: &[JobName], number: u64) -> (u64, JobName, Result<Task, String>) {
    let at = dice.below(TROUBLE / 2);
    let job = pick(dice, jobs).clone();
    if dice.chance(50) {
        return (at, job, Err("no valid task".into()));
    }
    let mut task = scenario::task(&format!("t{number}"));
    match dice.below(8) {
        0 => drop(task.labels.insert(QUEUES.into(), format!("s{number}"))),
        1 => drop(
            task.labels
                .insert(QUEUES.into(), format!("s{number},k/x{number},l/y{number}")),
        ),
        2 => {
            task.labels
                .insert(QUEUES.into(), format!("p{number},q{number},r{number}"));
            task.labels.insert(PAGE.into(), "1".into());
        }
        3 if number > 0 => {
            let other = dice.below(number);
            task.needs.extend(format!("t{other}").parse());
        }
        4 if number > 0 => {
            let (other, job) = (dice.below(number), pick(dice, jobs));
            task.needs.extend(format!("{job}/t{other}").parse());
        }
        5 => {
            let delay = std::time::Duration::from_millis(dice.below(TROUBLE));
            task.not_before = Some(crate::search::world::BEGIN.after(delay));
        }
        _ => {}
    }
    (at, job, Ok(task))
}

fn deed(dice: &mut Dice, jobs: &[JobName], tasks: u64) -> (u64, JobName, Deed) {
    let at = dice.below(TROUBLE);
    let job = pick(dice, jobs).clone();
    let id = format!("t{}", dice.below(tasks));
    let duplicate = || Deed::Publish(Box::new(Ok(scenario::task(&id))));
    let deed = match dice.below(8) {
        0 => Deed::Cancel,
        1 => id.parse().map_or(Deed::Cancel, Deed::CancelTask),
        2 | 3 => Deed::Retry,
        4 => Deed::Resume,
        5 => duplicate(),
        6 => Deed::Remove,
        _ => Deed::DeleteKey,
    };
    (at, job, deed)
}

fn fault(dice: &mut Dice, managers: usize) -> (u64, Fault) {
    let at = dice.below(TROUBLE);
    let manager = usize::try_from(dice.below(managers as u64)).unwrap_or(0);
    let span = 100 + dice.below(50_000);
    let fault = match dice.below(8) {
        0 => Fault::Manager(manager),
        1 => Fault::Runner(dice.below(100)),
        2 => Fault::Freeze(dice.below(100), span),
        3 => Fault::Stall(manager, span),
        4 => Fault::Election(span % 8000),
        5 => Fault::Lossy(span % 10_000),
        6 => Fault::Lag(span % 10_000),
        _ => Fault::Deaf(manager, span),
    };
    (at, fault)
}
