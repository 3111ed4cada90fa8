//! Liveness: from a state, does everything end once no more faults come?
//!
//! One fixed schedule of steps without faults is followed to its end. Since its steps are steps of the
//! search too, every state on the way is one of the search, and what ends once need not be followed
//! again: the search so checks that from every reachable state a way leads to the end of all.

use std::collections::HashSet;
use std::sync::PoisonError;

use air_protocol::invariants::check_all;
use air_protocol::job::JobStatus;
use air_protocol::record::is_live;

use super::world::{Budget, World};
use super::{Action, Search};
use crate::actor::Reply;
use crate::actor::runner::Ending;
use crate::history::{Known, history};

/// Steps after which nothing ends any more.
const STEPS_MAX: usize = 400;

impl Search {
    /// Follows a state to its end.
    ///
    /// # Errors
    /// What never ends, or is wrong at the end.
    pub fn drains(&self, world: &World) -> Result<(), String> {
        let mut world = world.clone();
        // What may still go wrong makes no difference to a way on which nothing does.
        world.budget = Budget::default();
        world.todo = 0;
        let mut path = HashSet::new();
        for _ in 0..STEPS_MAX {
            let fingerprint = world.fingerprint();
            if self.is_known(fingerprint) {
                self.learn(path);
                return Ok(());
            }
            path.insert(fingerprint);
            if !self.go_on(&mut world, fingerprint) {
                self.is_over(&world)?;
                self.learn(path);
                return Ok(());
            }
        }
        Err("it goes on for ever".to_owned())
    }

    fn is_known(&self, fingerprint: u64) -> bool {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.contains(&fingerprint)
    }

    fn learn(&self, path: HashSet<u64>) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.extend(path);
    }

    /// One step without a fault; whether there was one.
    fn go_on(&self, world: &mut World, before: u64) -> bool {
        if let Some(action) = self.under_way(world) {
            self.act_on(world, false, action);
            return true;
        }
        let jobs = self.jobs(world);
        let dead = jobs
            .iter()
            .find(|job| world.holder_is_dead(job) == Some(true));
        if let Some(job) = dead {
            self.act_on(world, false, Action::Judge(job.clone()));
            return true;
        }
        for job in &jobs {
            self.act_on(world, false, Action::Look(job.clone()));
            if world.fingerprint() != before {
                return true;
            }
        }
        let schedule = world.store.air.schedules().next();
        if let Some((seq, at)) = schedule {
            let now = self.now(world).after(std::time::Duration::from_secs(120));
            let waits = at > now && world.tick < self.scenario.moments.len();
            self.act(
                world,
                if waits {
                    Action::Tick
                } else {
                    Action::Fires(seq)
                },
            );
            return true;
        }
        for job in &jobs {
            self.act_on(world, false, Action::LookPastHold(job.clone()));
            if world.fingerprint() != before {
                return true;
            }
        }
        if world.tick < self.scenario.moments.len() {
            self.act_on(world, false, Action::Tick);
            return true;
        }
        false
    }

    /// What is under way goes first.
    fn under_way(&self, world: &World) -> Option<Action> {
        if !world.store.flight.is_empty() {
            return Some(Action::Arrives(0));
        }
        if !world.users.is_empty() {
            return Some(Action::UserGoesOn(0, Reply::Heard));
        }
        if let Some(runner) = world.runners.first() {
            let key = world.store.key(&runner.job);
            let ours = air_runner::hold::ours(&key, runner.run, runner.fence);
            return Some(match (runner.runs(), ours) {
                (false, _) => Action::Runner(0, Reply::Heard),
                (true, Some(air_runner::hold::Ours::Running)) => Action::Ends(0, Ending::Succeed),
                (true, _) => Action::Notices(0),
            });
        }
        let busy = world
            .managers
            .iter()
            .position(|manager| manager.process.is_some());
        busy.map(|index| Action::Manager(index, Reply::Heard))
    }

    /// Whether everything has ended as it should.
    fn is_over(&self, world: &World) -> Result<(), String> {
        let known = Known {
            acknowledged: &world.acknowledged,
            removed: &world.removed,
            quiet: true,
            now: None,
        };
        let history = history(&world.store, known);
        if let Some(violation) = check_all(&history).first() {
            return Err(violation.to_string());
        }
        for (name, job) in &history.jobs {
            let Some(state) = &job.state else {
                // A job whose tasks a user cancelled before a manager saw one never gets a key.
                match job.queue.first() {
                    Some(one) => return Err(format!("{name}/{} waits, and has no key", one.task)),
                    None => continue,
                }
            };
            let paused = world.store.spec(name).is_ok_and(|spec| spec.paused);
            let waits = paused || self.scenario.may_wait;
            let rests = waits && state.status == JobStatus::Waiting;
            if !state.status.is_over() && !rests {
                return Err(format!("{name} stays {}", state.name()));
            }
            if waits || matches!(state.status, JobStatus::Failed { .. }) {
                continue;
            }
            let live = job.queue.iter().chain(&job.schedules).find(|one| {
                let last = world.store.last_record(name, &one.task);
                is_live(one.attempt, last.map(|(seq, record)| record.last(seq)))
            });
            if let Some(one) = live {
                return Err(format!("{name}/{} is never run", one.task));
            }
        }
        Ok(())
    }
}
