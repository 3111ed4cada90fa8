//! What may happen next in a state, and what it does.

use air_protocol::job::JobStatus;
use air_protocol::names::JobName;
use air_protocol::time::Time;

use super::Search;
use super::world::{Around, Budget, Process, World};
use crate::actor::Reply;
use crate::actor::look::{After, Next};
use crate::actor::runner::{Ending, Stage};
use crate::actor::user::User;

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// A manager begins to look at a job.
    Look(JobName),
    /// A manager begins to look at a job whose hold is over.
    LookPastHold(JobName),
    /// A manager begins to take over a lease.
    Judge(JobName),
    /// A manager's next request, and what becomes of its answer.
    Manager(usize, Reply),
    /// A manager's next read lacks the last message.
    StaleRead(usize),
    /// A manager's claim goes through, and the backend refuses the start.
    RefusedStart(usize),
    /// A manager dies.
    ManagerDies(usize),
    /// A runner's next request.
    Runner(usize, Reply),
    /// A runner's program ends.
    Ends(usize, Ending),
    /// A runner looks at key and record.
    Notices(usize),
    /// A runner dies.
    RunnerDies(usize),
    /// A user begins.
    User(usize),
    /// A user's next request.
    UserGoesOn(usize, Reply),
    /// A user goes away in the middle.
    UserDies(usize),
    /// A schedule fires.
    Fires(u64),
    /// A write arrives.
    Arrives(usize),
    /// Time passes.
    Tick,
}

impl Search {
    /// Everything that may happen.
    pub fn all_actions(&self, world: &World, actions: &mut Vec<Action>) {
        self.begin_actions(world, actions);
        self.manager_actions(world, actions);
        self.runner_actions(world, actions);
        let budget = world.budget;
        for (index, user) in world.users.iter().enumerate() {
            actions.push(Action::UserGoesOn(index, Reply::Heard));
            if budget.lost > 0 && user.writes() {
                let unheard = [Reply::Lost, Reply::Late];
                actions.extend(unheard.map(|reply| Action::UserGoesOn(index, reply)));
            }
            if budget.crashes > 0 {
                actions.push(Action::UserDies(index));
            }
        }
        let deeds = 0..self.scenario.deeds.len();
        actions.extend(
            deeds
                .filter(|deed| world.todo & (1 << deed) != 0)
                .map(Action::User),
        );
        let now = self.now(world).after(std::time::Duration::from_secs(120));
        let due = world.store.air.schedules().filter(|(_, at)| *at <= now);
        actions.extend(due.map(|(seq, _)| Action::Fires(seq)));
        actions.extend((0..world.store.flight.len()).map(Action::Arrives));
        if world.tick < self.scenario.moments.len() {
            actions.push(Action::Tick);
        }
    }

    fn begin_actions(&self, world: &World, actions: &mut Vec<Action>) {
        if !world
            .managers
            .iter()
            .any(|manager| manager.process.is_none())
        {
            return;
        }
        for job in self.jobs(world) {
            let Some(dead) = world.holder_is_dead(&job) else {
                actions.push(Action::Look(job.clone()));
                if self.hold_may_pass(world, &job) {
                    actions.push(Action::LookPastHold(job));
                }
                continue;
            };
            if dead || world.budget.takes > 0 {
                actions.push(Action::Judge(job));
            }
        }
    }

    /// A hold may pass, but one that waits for a lost holder only once there is none.
    fn hold_may_pass(&self, world: &World, job: &JobName) -> bool {
        world.store.state(job).is_some_and(|state| {
            let removing = state.status == JobStatus::Removing;
            let held = state.hold_until.is_some() || (removing && state.zombie_until.is_some());
            held && (state.zombie_until.is_none() || !world.has_zombie(job))
        })
    }

    fn manager_actions(&self, world: &World, actions: &mut Vec<Action>) {
        let budget = world.budget;
        for (index, manager) in world.managers.iter().enumerate() {
            let Some(process) = &manager.process else {
                continue;
            };
            actions.push(Action::Manager(index, Reply::Heard));
            if budget.crashes > 0 {
                actions.push(Action::ManagerDies(index));
            }
            let claims = match process {
                Process::Look(look) => matches!(look.next, Next::Swap(_, After::Claim(_))),
                Process::Recover(_) => false,
            };
            if claims && budget.crashes > 0 {
                actions.push(Action::Manager(index, Reply::Dies));
            }
            if claims && budget.refused > 0 {
                actions.push(Action::RefusedStart(index));
            }
            if process.writes() && budget.lost > 0 {
                actions.push(Action::Manager(index, Reply::Lost));
                actions.push(Action::Manager(index, Reply::Late));
            }
            if !process.writes() && budget.stale > 0 {
                actions.push(Action::StaleRead(index));
            }
        }
    }

    fn runner_actions(&self, world: &World, actions: &mut Vec<Action>) {
        let budget = world.budget;
        for (index, runner) in world.runners.iter().enumerate() {
            if budget.crashes > 0 {
                actions.push(Action::RunnerDies(index));
            }
            if runner.runs() {
                actions.push(Action::Notices(index));
                let wanted = [
                    (Ending::Succeed, 1),
                    (Ending::Fail, budget.fails),
                    (Ending::Later, budget.later),
                    (Ending::Bad, budget.bad),
                ];
                let ends = wanted.into_iter().filter(|(_, left)| *left > 0);
                actions.extend(ends.map(|(ending, _)| Action::Ends(index, ending)));
                continue;
            }
            actions.push(Action::Runner(index, Reply::Heard));
            let writes = matches!(
                runner.stage,
                Stage::Start(_) | Stage::Commit(_) | Stage::Release(..)
            );
            if writes && budget.lost > 0 {
                actions.push(Action::Runner(index, Reply::Lost));
                actions.push(Action::Runner(index, Reply::Late));
            }
        }
    }

    /// What an action does.
    pub fn act(&self, world: &mut World, action: Action) {
        self.act_on(world, self.scenario.fine, action);
    }

    /// What an action does, with every request a step of its own or not.
    pub fn act_on(&self, world: &mut World, fine: bool, action: Action) {
        let now = self.now(world);
        let mut around = Around {
            reply: Reply::Heard,
            stale: false,
            refuse: false,
            bug: self.bug,
            fine,
        };
        match action {
            Action::Look(job) => self.look(world, &job, None, fine),
            Action::LookPastHold(job) => {
                let state = world.store.state(&job);
                let until = state.and_then(|state| state.hold_until.max(state.zombie_until));
                self.look(world, &job, until, fine);
            }
            Action::Judge(job) => {
                let dead = world.holder_is_dead(&job) == Some(true);
                if let Some(index) = idle(world) {
                    world.budget.takes -= u8::from(!dead);
                    world.tainted |= !dead && world.has_started(&job);
                    world.judge(index, &job, now);
                }
            }
            Action::Manager(index, reply) => {
                spend(world, reply);
                around.reply = reply;
                world.step_manager(index, around);
            }
            Action::StaleRead(index) => {
                world.budget.stale -= 1;
                around.stale = true;
                world.step_manager(index, around);
            }
            Action::RefusedStart(index) => {
                world.budget.refused -= 1;
                around.refuse = true;
                world.step_manager(index, around);
            }
            Action::ManagerDies(index) => {
                world.budget.crashes -= 1;
                world.managers[index].process = None;
            }
            Action::Runner(index, reply) => {
                spend(world, reply);
                around.reply = reply;
                world.step_runner(index, around, now, Ending::Succeed);
            }
            Action::Ends(index, ending) => {
                spend_ending(&mut world.budget, ending);
                world.step_runner(index, around, now, ending);
            }
            Action::Notices(index) => world.notice(index, around, now),
            Action::RunnerDies(index) => {
                world.budget.crashes -= 1;
                world.runners.remove(index);
            }
            Action::User(_) | Action::UserGoesOn(..) | Action::UserDies(_) => {
                self.act_of_user(world, around, now, action);
            }
            Action::Fires(seq) => drop(world.store.air.fire(seq, now)),
            Action::Arrives(index) => {
                let write = world.store.flight.remove(index);
                world.store.apply(&write, now);
            }
            Action::Tick => world.tick += 1,
        }
    }

    fn act_of_user(&self, world: &mut World, mut around: Around, now: Time, action: Action) {
        match action {
            Action::User(deed) => {
                world.todo &= !(1 << deed);
                let (job, deed) = self.scenario.deeds[deed].clone();
                world.users.push(User::new(job, deed));
                let last = world.users.len() - 1;
                world.step_user(last, around, now);
            }
            Action::UserGoesOn(index, reply) => {
                spend(world, reply);
                around.reply = reply;
                world.step_user(index, around, now);
            }
            Action::UserDies(index) => {
                world.budget.crashes -= 1;
                world.users.remove(index);
            }
            _ => {}
        }
    }

    fn look(&self, world: &mut World, job: &JobName, now: Option<Time>, fine: bool) {
        let Some(index) = idle(world) else { return };
        let usual = self.now(world);
        world.look(index, job, now.unwrap_or(usual).max(usual), now.is_some());
        // The key is read at once, so that a look begins with what it will compare.
        let around = Around {
            reply: Reply::Heard,
            stale: false,
            refuse: false,
            bug: self.bug,
            fine,
        };
        world.step_manager(index, around);
    }
}

fn idle(world: &World) -> Option<usize> {
    world
        .managers
        .iter()
        .position(|manager| manager.process.is_none())
}

fn spend(world: &mut World, reply: Reply) {
    match reply {
        Reply::Heard => {}
        Reply::Lost | Reply::Late => world.budget.lost -= 1,
        Reply::Dies => world.budget.crashes -= 1,
    }
}

fn spend_ending(budget: &mut Budget, ending: Ending) {
    match ending {
        Ending::Succeed => {}
        Ending::Fail => budget.fails -= 1,
        Ending::Later => budget.later -= 1,
        Ending::Bad => budget.bad -= 1,
    }
}
