//! The scenarios: small worlds, each with the faults that are put in.

use std::time::Duration;

use air_protocol::names::{JobName, TaskId};
use air_protocol::spec::{OnFailure, Spec};
use air_protocol::task::{Approval, Retry, Task, Work};
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

#[allow(clippy::expect_used, reason = "ids of the model are ids")]
fn named_task(id: &str) -> TaskId {
    id.parse().expect("an id")
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
    let retry = Retry {
        max: Some(1),
        ..Retry::default()
    };
    let mut spec = Spec {
        retry: Some(retry),
        on_failure: OnFailure::Continue,
        ..Spec::default()
    };
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

    fn waiting_twice(mut self) -> Self {
        self.one_next = false;
        self
    }

    fn waiting(mut self) -> Self {
        self.may_wait = true;
        self
    }

    fn fine(mut self) -> Self {
        self.fine = true;
        self
    }
}

/// The scenarios, the quick ones first.
pub fn all() -> Vec<Scenario> {
    let mut all = faults();
    all.extend(users());
    all.extend(more_users());
    all.extend(kinds());
    all.extend(approvals());
    all.extend(long());
    all
}

fn family() -> Vec<Task> {
    vec![queues("a", "s")]
}

/// Faults of processes and of the broker.
fn faults() -> Vec<Scenario> {
    let new = Scenario::new;
    vec![
        new("family", "2 crashes, 1 failure", family())
            .with(|budget| (budget.crashes, budget.fails) = (2, 1)),
        new(
            "family, take-over",
            "1 false take-over, 1 failure",
            family(),
        )
        .with(|budget| (budget.takes, budget.fails) = (1, 1)),
        new(
            "family, no answer",
            "1 lost or late answer, 1 failure",
            family(),
        )
        .with(|budget| (budget.lost, budget.fails) = (1, 1)),
        new(
            "family, zombie in the dark",
            "1 false take-over, 1 lost or late answer",
            vec![task("a")],
        )
        .with(|budget| (budget.takes, budget.lost) = (1, 1)),
        new(
            "family, step by step",
            "1 crash; every read a step of its own",
            family(),
        )
        .with(|budget| budget.crashes = 1)
        .fine(),
        new(
            "stale reads",
            "2 stale reads, 1 failure; every read a step of its own",
            vec![task("a")],
        )
        .with(|budget| (budget.stale, budget.fails) = (2, 1))
        .fine(),
        new(
            "refused starts",
            "5 refused starts, 1 crash",
            vec![task("a")],
        )
        .with(|budget| (budget.refused, budget.crashes) = (5, 1)),
    ]
}

/// What users do at any moment.
fn users() -> Vec<Scenario> {
    let new = Scenario::new;
    let cancel = || (job(), Deed::Cancel);
    let cancel_task = || (job(), Deed::CancelTask(named_task("a")));
    let retry = || (job(), Deed::Retry);
    vec![
        new(
            "cancel job, retry",
            "cancel, retry, 1 false take-over",
            vec![task("a")],
        )
        .deeds([cancel(), retry()])
        .with(|budget| budget.takes = 1),
        new(
            "cancel job, publish",
            "cancel, publish, 1 crash",
            vec![task("a")],
        )
        .deeds([cancel(), publish(task("b"))])
        .with(|budget| budget.crashes = 1),
        new(
            "cancel task, retry",
            "cancel task, retry, 1 failure",
            vec![task("a")],
        )
        .deeds([cancel_task(), retry()])
        .with(|budget| budget.fails = 1),
        new(
            "policy stop, retry",
            "2 failures, retry, 1 crash",
            vec![task("a"), task("b")],
        )
        .spec(|spec| spec.on_failure = OnFailure::Stop)
        .deeds([retry()])
        .with(|budget| (budget.crashes, budget.bad) = (1, 1)),
    ]
}

/// What else users do.
fn more_users() -> Vec<Scenario> {
    let new = Scenario::new;
    vec![
        new(
            "policy stop, resume",
            "1 failure for good, resume, 1 crash",
            vec![task("a"), task("b")],
        )
        .spec(|spec| spec.on_failure = OnFailure::Stop)
        .deeds([(job(), Deed::Resume)])
        .with(|budget| (budget.crashes, budget.bad) = (1, 1)),
        new(
            "remove, publish",
            "remove, publish, 1 crash",
            vec![task("a")],
        )
        .deeds([(job(), Deed::Remove), publish(task("b"))])
        .with(|budget| budget.crashes = 1),
        new(
            "pause, resume",
            "pause, resume, 1 failure, 1 crash",
            vec![task("a")],
        )
        .deeds([(job(), Deed::Pause), (job(), Deed::Resume)])
        .with(|budget| (budget.crashes, budget.fails) = (1, 1)),
        new(
            "key deleted",
            "the key is deleted, 1 crash, 1 failure",
            vec![task("a")],
        )
        .deeds([(job(), Deed::DeleteKey)])
        .with(|budget| (budget.crashes, budget.fails) = (1, 1)),
        new(
            "key spoilt",
            "the key is overwritten, cancel task",
            vec![task("a")],
        )
        .deeds([
            (job(), Deed::SpoilKey),
            (job(), Deed::CancelTask(named_task("a"))),
        ]),
        new(
            "duplicate id",
            "the task is published twice, 1 failure, 1 crash",
            vec![task("a")],
        )
        .deeds([publish(task("a"))])
        .with(|budget| (budget.crashes, budget.fails) = (1, 1))
        .waiting_twice(),
    ]
}

fn pages() -> Task {
    let mut pages = queues("a", "p,q,r");
    pages.labels.insert(PAGE.into(), "1".into());
    pages
}

/// Kinds of tasks.
fn kinds() -> Vec<Scenario> {
    let new = Scenario::new;
    let hour = Duration::from_secs(3600);
    let mut late = task("a");
    late.not_before = Some(BEGIN.after(hour));
    let mut invalid = new("invalid message", "1 lost or late answer", vec![task("a")])
        .with(|budget| budget.lost = 1);
    invalid
        .tasks
        .insert(0, (job(), Err("no valid task".into())));
    let mut two =
        new("two jobs", "1 crash", vec![queues("a", "k/s")]).with(|budget| budget.crashes = 1);
    two.specs.push((named("k"), Ok(Spec::default())));
    let mut timeout = new(
        "needs_timeout",
        "time, publish, 1 crash",
        vec![needs("a", "b")],
    )
    .spec(|spec| spec.needs_timeout = Some(Span(Duration::from_secs(3600))))
    .deeds([publish(task("b"))])
    .with(|budget| budget.crashes = 1);
    timeout.moments = vec![hour * 2];
    let mut due =
        new("not_before", "time, 1 false take-over", vec![late]).with(|budget| budget.takes = 1);
    due.moments = vec![hour];
    vec![
        new(
            "needs, blocked at the head",
            "1 crash, 2 failures",
            vec![needs("b", "a"), task("a")],
        )
        .with(|budget| (budget.crashes, budget.fails) = (1, 2)),
        new("exit 75", "2 later, 1 false take-over", vec![task("a")])
            .with(|budget| (budget.takes, budget.later) = (1, 2)),
        new("fan-out of 3 pages", "1 crash", vec![pages()]).with(|budget| budget.crashes = 1),
        new(
            "circle",
            "2 crashes",
            vec![needs("a", "b"), needs("b", "a")],
        )
        .with(|budget| budget.crashes = 2),
        new(
            "needs, published late",
            "needs published at any time, 1 failure",
            vec![task("a")],
        )
        .deeds([publish(needs("b", "c"))])
        .with(|budget| budget.fails = 1)
        .waiting(),
        invalid,
        two,
        timeout,
        due,
    ]
}

/// A task that waits for a person, and what people do with it.
fn approval(name: &'static str, faults: &'static str, deeds: &[fn() -> Deed]) -> Scenario {
    let mut asks = task("a");
    asks.approval = Some(Approval::Required);
    Scenario::new(name, faults, vec![asks])
        .deeds(deeds.iter().map(|deed| (job(), deed())))
        .waiting()
}

/// Tasks that wait for a person.
fn approvals() -> Vec<Scenario> {
    let approve = || Deed::Approve(named_task("a"));
    let reject = || Deed::Reject(named_task("a"));
    let cancel = || Deed::CancelTask(named_task("a"));
    let long = Scenario {
        long: true,
        ..approval(
            "long: approval",
            "approve, reject, cancel task, 1 crash, 1 false take-over",
            &[approve, reject, cancel],
        )
        .with(|budget| (budget.crashes, budget.takes) = (1, 1))
    };
    vec![
        approval("approval", "approve, reject, 1 crash", &[approve, reject])
            .with(|budget| budget.crashes = 1),
        approval(
            "approval, cancel task",
            "approve, reject, cancel task",
            &[approve, reject, cancel],
        ),
        approval(
            "approval, cancel job",
            "approve, cancel",
            &[approve, || Deed::Cancel],
        ),
        long,
    ]
}

/// Deeper.
fn long() -> Vec<Scenario> {
    let new = Scenario::new;
    let all = vec![
        new(
            "long: family",
            "4 crashes, 1 false take-over, 2 failures",
            family(),
        )
        .with(|budget| (budget.crashes, budget.takes, budget.fails) = (4, 1, 2)),
        new(
            "long: everything once",
            "1 crash, 1 false take-over, 1 lost or late answer, 1 failure",
            family(),
        )
        .with(|budget| (budget.crashes, budget.takes, budget.lost, budget.fails) = (1, 1, 1, 1)),
        new("long: fan-out", "1 crash, 1 false take-over", vec![pages()])
            .with(|budget| (budget.crashes, budget.takes) = (1, 1)),
        new(
            "long: remove",
            "remove, publish, 1 crash, 1 false take-over",
            vec![task("a")],
        )
        .deeds([(job(), Deed::Remove), publish(task("b"))])
        .with(|budget| (budget.crashes, budget.takes) = (1, 1)),
        new("long: losses", "5 crashes", vec![task("a")]).with(|budget| budget.crashes = 5),
        new(
            "long: cancel, step by step",
            "cancel, retry, 1 false take-over; every read a step of its own",
            family(),
        )
        .deeds([(job(), Deed::Cancel), (job(), Deed::Retry)])
        .with(|budget| budget.takes = 1)
        .fine(),
        new(
            "long: cancel in the dark",
            "cancel, retry, 1 lost or late answer, 1 crash",
            family(),
        )
        .deeds([(job(), Deed::Cancel), (job(), Deed::Retry)])
        .with(|budget| (budget.lost, budget.crashes) = (1, 1)),
    ];
    all.into_iter()
        .map(|scenario| Scenario {
            long: true,
            ..scenario
        })
        .collect()
}
