//! The search: every state that a small scenario can reach, by `stateright`.

mod action;
mod drain;
mod fingerprint;
pub mod scenario;
pub mod table;
pub mod world;

pub use action::Action;

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Mutex;

use air_protocol::invariants::check_all;
use air_protocol::names::JobName;
use air_protocol::time::Time;
use stateright::{Model, Property};

use crate::bug::Bug;
use crate::history::{Known, history};
use scenario::Scenario;
use world::{BEGIN, Manager, World};

/// Where sequences of the stream begin, so that they are no counters.
const SEQ: u64 = 1000;

/// A scenario that is searched, and what is already known to end well.
#[derive(Debug)]
pub struct Search {
    /// The scenario.
    pub scenario: Scenario,
    /// A bug that is put in.
    pub bug: Option<Bug>,
    /// Fingerprints of states from which everything ends.
    ends: Mutex<HashSet<u64>>,
}

impl Search {
    /// A search of a scenario.
    pub fn new(scenario: Scenario, bug: Option<Bug>) -> Self {
        Self {
            scenario,
            bug,
            ends: Mutex::default(),
        }
    }

    /// The world as it begins.
    pub fn begin(&self) -> World {
        let scenario = &self.scenario;
        let mut store = crate::store::Store::default();
        store.air = store.air.beginning_at(SEQ);
        let mut acknowledged = std::collections::BTreeSet::new();
        store.specs.extend(scenario.specs.iter().cloned());
        for (job, task) in &scenario.tasks {
            let seq = store.publish(job, task.clone(), BEGIN);
            if let Ok(task) = task {
                acknowledged.insert((job.clone(), task.id_at(seq)));
            }
        }
        let idle = Manager {
            process: None,
            now: BEGIN,
            past_hold: false,
        };
        World {
            store,
            managers: vec![idle; scenario.managers],
            runners: Vec::new(),
            users: Vec::new(),
            todo: (1 << scenario.deeds.len()) - 1,
            budget: scenario.budget,
            tick: 0,
            tainted: false,
            acknowledged,
            removed: std::collections::BTreeSet::new(),
            runs: 1,
            broken: None,
        }
    }

    /// The moment.
    pub fn now(&self, world: &World) -> Time {
        let ticks = &self.scenario.moments;
        world
            .tick
            .checked_sub(1)
            .map_or(BEGIN, |tick| BEGIN.after(ticks[tick]))
    }

    /// Looks for what is broken.
    pub fn inspect(&self, world: &mut World) {
        let known = Known {
            acknowledged: &world.acknowledged,
            removed: &world.removed,
            quiet: false,
            now: None,
        };
        let violations = check_all(&history(&world.store, known));
        world.broken = violations.first().map(ToString::to_string);
        if world.broken.is_none() && !world.tainted && world.overlaps() {
            let text = "I1 one-runner: two runners execute, though no live holder was judged dead";
            world.broken = Some(text.to_owned());
        }
        if world.broken.is_none() && self.scenario.one_next {
            world.broken = self.waits_twice(world);
        }
    }

    /// A task of which two next attempts wait. Only a user's duplicate may do that.
    fn waits_twice(&self, world: &World) -> Option<String> {
        let known = Known {
            acknowledged: &world.acknowledged,
            removed: &world.removed,
            quiet: false,
            now: None,
        };
        for (name, job) in history(&world.store, known).jobs {
            let mut seen = HashSet::new();
            for message in job.queue.iter().chain(&job.schedules) {
                let last = world.store.last_record(&name, &message.task);
                let last = last.map(|(seq, record)| record.last(seq));
                if air_protocol::record::is_live(message.attempt, last)
                    && !seen.insert(message.task.clone())
                {
                    return Some(format!(
                        "{name}/{} waits twice for its next attempt",
                        message.task
                    ));
                }
            }
        }
        None
    }

    /// The jobs that a manager may look at.
    pub fn jobs(&self, world: &World) -> Vec<JobName> {
        world.store.all_jobs()
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fingerprint().hash(state);
        self.broken.is_some().hash(state);
    }
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint() == other.fingerprint()
    }
}

impl Model for Search {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut world = self.begin();
        self.inspect(&mut world);
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.broken.is_none() {
            self.all_actions(world, actions);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        let before = (next.store.air.last_seq(), next.store.air.all().len());
        let key = next.store.jobs.last_seq();
        self.act(&mut next, action);
        let after = (next.store.air.last_seq(), next.store.air.all().len());
        if after != before || key != next.store.jobs.last_seq() || next.overlaps() {
            self.inspect(&mut next);
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("invariants", |_, world: &World| world.broken.is_none()),
            Property::always("every job ends", |model: &Self, world: &World| {
                world.broken.is_some() || model.drains(world).is_ok()
            }),
        ]
    }
}
