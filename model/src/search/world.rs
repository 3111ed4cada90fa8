//! A state of the search: the broker, the processes, and the faults that are still to come.

use std::collections::BTreeSet;

use air_manager::backlog::Backlog;
use air_manager::circle::Waits;
use air_manager::decide::Me;
use air_manager::recover::of;
use air_protocol::job::JobStatus;
use air_protocol::lease::Phase;
use air_protocol::names::{JobName, TaskId};
use air_protocol::time::Time;
use uuid::Uuid;

use crate::actor::look::{Look, Next};
use crate::actor::recover::{self, Recover};
use crate::actor::runner::{Ending, Runner};
use crate::actor::user::{Deed, User};
use crate::actor::{Env, Flow, Reply};
use crate::bug::Bug;
use crate::canon::Canon;
use crate::store::{Store, Write};

/// The first moment.
pub const BEGIN: Time = Time::from_millis(1_800_000_000_000);

/// Faults that may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Budget {
    /// Deaths of managers, runners and users.
    pub crashes: u8,
    /// Live holders that are judged dead.
    pub takes: u8,
    /// Answers that are lost, and writes that arrive late.
    pub lost: u8,
    /// Reads from a replica that lacks the last message.
    pub stale: u8,
    /// Starts that a backend refuses.
    pub refused: u8,
    /// Programs that fail.
    pub fails: u8,
    /// Programs that ask to be run later.
    pub later: u8,
    /// Programs that write a bad line.
    pub bad: u8,
}

/// A manager.
#[derive(Debug, Clone)]
pub struct Manager {
    /// What it is doing.
    pub process: Option<Process>,
    /// Its time, since a hold may have passed for it.
    pub now: Time,
    /// A hold has passed for it.
    pub past_hold: bool,
}

/// What a manager does.
#[derive(Debug, Clone)]
pub enum Process {
    /// It looks at a job.
    Look(Box<Look>),
    /// It takes a lease over.
    Recover(Box<Recover>),
}

impl Process {
    /// Whether the next request is a write.
    pub fn writes(&self) -> bool {
        match self {
            Self::Look(look) => look.writes(),
            Self::Recover(recover) => recover.writes(),
        }
    }

    /// The holder in whose name it works.
    fn run(&self) -> Option<Uuid> {
        let state = match self {
            Self::Look(look) => match &look.next {
                Next::Settle(settle) => &settle.state,
                _ => return None,
            },
            Self::Recover(recover) => match &recover.stage {
                recover::Stage::Settle(settle) => &settle.state,
                recover::Stage::Read | recover::Stage::Take(..) => return None,
            },
        };
        state.lease().map(|lease| lease.runner)
    }
}

/// A state of the search.
#[derive(Debug, Clone)]
pub struct World {
    /// The broker.
    pub store: Store,
    /// The managers.
    pub managers: Vec<Manager>,
    /// The runners that live.
    pub runners: Vec<Runner>,
    /// The users at work.
    pub users: Vec<User>,
    /// Deeds of users that are still to come, one bit each.
    pub todo: u32,
    /// Faults that are still to come.
    pub budget: Budget,
    /// Which moment it is.
    pub tick: usize,
    /// A live holder was judged dead: from now on two runners may overlap.
    pub tainted: bool,
    /// Tasks whose publish was acknowledged.
    pub acknowledged: BTreeSet<(JobName, TaskId)>,
    /// Jobs that a user removed.
    pub removed: BTreeSet<JobName>,
    /// The id of the next runner.
    pub runs: u128,
    /// What is broken.
    pub broken: Option<String>,
}

/// What surrounds a step.
#[derive(Debug, Clone, Copy)]
pub struct Around {
    /// What becomes of an answer.
    pub reply: Reply,
    /// The read lacks the last message.
    pub stale: bool,
    /// A start is refused.
    pub refuse: bool,
    /// A bug.
    pub bug: Option<Bug>,
    /// Every request is a step of its own; else reads go together.
    pub fine: bool,
}

impl World {
    /// The fingerprint.
    pub fn fingerprint(&self) -> u64 {
        Canon::of(|canon| canon.world(self))
    }

    fn env(&mut self, now: Time, around: Around) -> Env<'_> {
        let last = self.store.air.last_seq();
        let replica = around
            .stale
            .then(|| self.store.air.up_to(last.saturating_sub(1)));
        Env {
            store: &mut self.store,
            replica,
            now,
            reply: around.reply,
            bug: around.bug,
            runs: &mut self.runs,
            spawned: Vec::new(),
            refuse_start: around.refuse,
        }
    }

    /// A manager begins to look at a job.
    pub fn look(&mut self, index: usize, job: &JobName, now: Time, past_hold: bool) {
        let me = Me {
            id: format!("m{index}"),
        };
        let backlog = Box::new(Backlog::new(job.clone()));
        let mut look = Look::new(job.clone(), me, None, backlog);
        look.short = true;
        self.managers[index] = Manager {
            process: Some(Process::Look(Box::new(look))),
            now,
            past_hold,
        };
    }

    /// A manager begins to take a lease over.
    pub fn judge(&mut self, index: usize, job: &JobName, now: Time) {
        let revision = self.store.key(job).revision();
        let recover = Recover::new(job.clone(), revision, format!("m{index}"));
        self.managers[index] = Manager {
            process: Some(Process::Recover(Box::new(recover))),
            now,
            past_hold: false,
        };
    }

    /// A manager's next request; reads that follow go with it unless every step is its own.
    pub fn step_manager(&mut self, index: usize, around: Around) {
        let now = self.managers[index].now;
        let Some(mut process) = self.managers[index].process.take() else {
            return;
        };
        let mut waits = Waits::default();
        let mut around = around;
        loop {
            let mut env = self.env(now, around);
            let flow = match &mut process {
                Process::Look(look) => look.step(&mut env, &mut waits),
                Process::Recover(recover) => recover.step(&mut env),
            };
            let spawned = std::mem::take(&mut env.spawned);
            self.runners.extend(spawned);
            if flow == Flow::Ends || around.reply == Reply::Dies {
                return;
            }
            if around.fine || process.writes() {
                break;
            }
            around.reply = Reply::Heard;
        }
        self.managers[index].process = Some(process);
    }

    /// A runner's next request.
    pub fn step_runner(&mut self, index: usize, around: Around, now: Time, ending: Ending) {
        let mut runner = self.runners.remove(index);
        let mut env = self.env(now, around);
        if runner.step(&mut env, ending) == Flow::Goes {
            self.runners.insert(index, runner);
        }
    }

    /// A runner looks at the key and the record.
    pub fn notice(&mut self, index: usize, around: Around, now: Time) {
        let mut runner = self.runners.remove(index);
        let mut env = self.env(now, around);
        if runner.notice(&mut env) == Flow::Goes {
            self.runners.insert(index, runner);
        }
    }

    /// A user's next request.
    pub fn step_user(&mut self, index: usize, around: Around, now: Time) {
        let mut user = self.users.remove(index);
        let mut env = self.env(now, around);
        let flow = user.step(&mut env);
        if let Deed::Publish(task) = &user.deed
            && let Ok(task) = task.as_ref()
        {
            let id = task.id_at(self.store.air.last_seq());
            self.acknowledged.insert((user.job.clone(), id));
        }
        if user.deed == Deed::Remove {
            self.removed.insert(user.job.clone());
        }
        if flow == Flow::Goes {
            self.users.insert(index, user);
        }
    }

    /// Whether the holder of a job's lease is gone; none where there is no lease.
    pub fn holder_is_dead(&self, job: &JobName) -> Option<bool> {
        let lease = self.store.state(job)?.lease()?;
        let runner = self.runners.iter().any(|runner| runner.run == lease.runner);
        let managers = self
            .managers
            .iter()
            .filter_map(|manager| manager.process.as_ref());
        let mut working = managers.filter_map(Process::run);
        let managed = working.any(|run| run == lease.runner);
        Some(match lease.phase {
            Phase::Starting { .. } | Phase::Running(_) | Phase::Stopping { .. } => !runner,
            Phase::Settling { .. } | Phase::Recovering { .. } => !managed,
        })
    }

    /// Whether the runner of a job's lease lives and has started: only then a false judgement lets two
    /// overlap, since the start keeps all others out.
    pub fn has_started(&self, job: &JobName) -> bool {
        let lease = self.store.state(job).and_then(|state| state.lease());
        lease.is_some_and(|lease| {
            let started = matches!(of(&lease.phase), Phase::Running(_) | Phase::Stopping { .. });
            started && self.runners.iter().any(|runner| runner.run == lease.runner)
        })
    }

    /// Whether anybody whose lease is gone may still commit. The clocks of the system see to it that
    /// nobody can once a hold after a lost lease is over.
    pub fn has_zombie(&self, job: &JobName) -> bool {
        let holder = self.store.state(job).and_then(|state| state.lease());
        let holder = holder.map(|lease| lease.runner);
        let commits = |write: &Write| matches!(write, Write::Commit(..));
        let runs = self
            .runners
            .iter()
            .filter(|runner| runner.job == *job && runner.may_commit());
        let runs = runs.map(|runner| runner.run);
        let managers = self
            .managers
            .iter()
            .filter_map(|manager| manager.process.as_ref());
        let mut all = runs.chain(managers.filter_map(Process::run));
        all.any(|run| Some(run) != holder) || self.store.flight.iter().any(commits)
    }

    /// Whether two runners execute tasks of one job.
    pub fn overlaps(&self) -> bool {
        let running = |runner: &&Runner| runner.runs();
        let mut jobs: Vec<_> = self
            .runners
            .iter()
            .filter(running)
            .map(|one| &one.job)
            .collect();
        let count = jobs.len();
        jobs.sort();
        jobs.dedup();
        jobs.len() < count
    }

    /// Whether a job's status says that somebody works, or that nothing is to be looked at.
    pub fn is_worked_on(&self, job: &JobName) -> bool {
        self.store
            .state(job)
            .is_some_and(|state| matches!(state.status, JobStatus::Working { .. }))
    }
}
