//! The scenarios: small worlds, each with the faults that are put in.

use std::time::Duration;

use air_protocol::names::JobName;
use air_protocol::spec::{OnFailure, Spec};
use air_protocol::task::{Retry, Task, Work};
use air_protocol::time::Span;

use super::world::{BEGIN, Budget};
use crate::actor::runner::{PAGE, QUEUES};
use crate::actor::user::Deed;

/// A small world, and what may go wrong in it.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// The faults, in words.
    pub faults: &'static str,
    /// Tasks that are published at the beginning.
    pub tasks: Vec<(JobName, Result<Task, String>)>,
    /// Specs.
    pub specs: Vec<(JobName, Result<Spec, String>)>,
    /// What users do, each at most once, at any moment.
    pub deeds: Vec<(JobName, Deed)>,
    /// Managers.
    pub managers: usize,
    /// Faults.
    pub budget: Budget,
    /// Moments to which time may go on, after the beginning.
    pub moments: Vec<Duration>,
    /// Every request is a step of its own.
    pub fine: bool,
    /// No task may wait twice for its next attempt.
    pub one_next: bool,
    /// A job may stay waiting, for a need that nobody publishes.
    pub may_wait: bool,
    /// Not part of the quick set.
    pub long: bool,
}

/// The job.
pub fn job() -> JobName {
    named("j")
}

#[allow(clippy::expect_used, reason = "names of the model are names")]
fn named(name: &str) -> JobName {
    name.parse().expect("a name")
}

/// A task with an id.
#[allow(clippy::expect_used, reason = "ids of the model are ids")]
pub fn task(id: &str) -> Task {
    let mut task = Task::new(Work::Run("true".into()));
    task.id = Some(id.parse().expect("an id"));
    task
}

fn queues(id: &str, names: &str) -> Task {
    let mut task = task(id);
    task.labels.insert(QUEUES.into(), names.into());
    task
}

#[allow(clippy::expect_used, reason = "needs of the model are needs")]
fn needs(id: &str, need: &str) -> Task {
    let mut task = task(id);
    task.needs = vec![need.parse().expect("a need")];
    task
}

/// Few retries, so that the search ends.
fn spec(change: impl Fn(&mut Spec)) -> (JobName, Result<Spec, String>) {
    let mut spec = Spec::default();
    spec.retry = Some(Retry {
        max: Some(1),
        ..Retry::default()
    });
    spec.on_failure = OnFailure::Continue;
    change(&mut spec);
    (job(), Ok(spec))
}

fn publish(task: Task) -> (JobName, Deed) {
    (job(), Deed::Publish(Box::new(Ok(task))))
}

impl Scenario {
    fn new(name: &'static str, faults: &'static str, tasks: Vec<Task>) -> Self {
        Self {
            name,
            faults,
            tasks: tasks.into_iter().map(|task| (job(), Ok(task))).collect(),
            specs: vec![spec(|_| {})],
            deeds: Vec::new(),
            managers: 2,
            budget: Budget::default(),
            moments: Vec::new(),
            fine: false,
            one_next: true,
            may_wait: false,
            long: false,
        }
    }

    fn with(mut self, change: impl Fn(&mut Budget)) -> Self {
        change(&mut self.budget);
        self
    }

    fn deeds(mut self, deeds: impl IntoIterator<Item = (JobName, Deed)>) -> Self {
        self.deeds.extend(deeds);
        self
    }

    fn spec(mut self, change: impl Fn(&mut Spec)) -> Self {
        self.specs = vec![spec(change)];
        self
    }

    fn fine(mut self) -> Self {
        self.fine = true;
        self
    }
}

/// The scenarios, the quick ones first.
pub fn all() -> Vec<Scenario> {
    let family = || vec![queues("a", "s")];
    vec![
        Scenario::new("family", "1 crash, 1 failure", family())
            .with(|budget| (budget.crashes, budget.fails) = (1, 1)),
    ]
}
