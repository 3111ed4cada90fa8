//! The load: jobs that end, of tasks that print, give an output, fail at first or queue others; and a job that never ends.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use air_nats::Nats;
use air_protocol::ledger::Counters;
use air_protocol::names::JobName;
use air_tests::{Installation, time_passes};
use serde_json::{Value, json};

use crate::Plan;

/// The job that never ends.
pub(crate) const ENDLESS: &str = "endless";
/// Its queue is kept about this long: back-pressure.
const QUEUED_MAX: u64 = 20;
/// How often its queue is looked at.
const FEED_EVERY: Duration = Duration::from_millis(200);
/// One task of a job in so many queues two others; others print, or fail at first.
const KINDS: u64 = 10;
const CHILDREN: u64 = 2;

/// The task number `n` of any job.
fn task(n: u64) -> Value {
    let id = format!("t{n}");
    let retry = json!({ "backoff": "500ms" });
    match n % KINDS {
        0 => {
            let child = |c: u64| json!({ "id": format!("{id}-{c}"), "exec": ["true"] });
            let lines: String = (0..CHILDREN).map(|c| format!("{}\n", child(c))).collect();
            let run = format!("cat >> $AIR_TASKS <<'END'\n{lines}END\n");
            json!({ "id": id, "run": run })
        }
        1 => json!({ "id": id, "run": "test $AIR_ATTEMPT -ge 2", "retry": retry }),
        2 => json!({ "id": id, "run": "echo \"{\\\"task\\\": $$}\" > $AIR_OUTPUT" }),
        3 => json!({ "id": id, "run": "echo working on it" }),
        _ => json!({ "id": id, "exec": ["true"] }),
    }
}

/// How many tasks come of `published` ones.
pub(crate) fn tasks_of(published: u64) -> u64 {
    published + CHILDREN * published.div_ceil(KINDS)
}

/// How many attempts they take.
fn attempts_of(published: u64) -> u64 {
    tasks_of(published) + (published + KINDS - 2) / KINDS
}

pub(crate) async fn spec(air: &Installation, job: &str) {
    air.spec(job, r#"{"keep":"24h","on_failure":"continue"}"#)
        .await;
}

pub(crate) async fn delete_spec(air: &Installation, job: &str) {
    let job: JobName = job.parse().unwrap();
    let (_, revision) = air.nats.spec(&job).await.unwrap();
    air.nats.delete_spec(&job, revision).await.unwrap();
}

/// Publishes one wave of jobs; gives their names.
pub(crate) async fn wave(air: &Installation, wave: i64, plan: &Plan) -> Vec<String> {
    let jobs: Vec<_> = (0..plan.jobs).map(|job| format!("w{wave}-{job}")).collect();
    for job in &jobs {
        spec(air, job).await;
    }
    for n in 0..plan.job_tasks {
        for job in &jobs {
            publish(&air.nats, job, n).await;
        }
    }
    jobs
}

async fn publish(nats: &Nats, job: &str, n: u64) {
    let (job, body) = (job.parse().unwrap(), task(n).to_string());
    nats.publish_task(&job, None, body.into_bytes(), None)
        .await
        .unwrap();
}

/// What was published into the job that never ends.
#[derive(Debug, Default)]
pub(crate) struct Endless {
    published: AtomicU64,
    stopped: AtomicBool,
}

impl Endless {
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Panics unless each of its tasks was counted once, after as many attempts as it needs.
    pub(crate) fn check(&self, counters: &Counters) {
        let published = self.published.load(Ordering::Relaxed);
        assert_eq!(counters.succeeded, tasks_of(published), "{counters:?}");
        assert_eq!(counters.tasks(), counters.succeeded, "{counters:?}");
        assert_eq!(counters.attempts, attempts_of(published), "{counters:?}");
    }
}

/// Publishes into the job that never ends whenever its queue is short, until that is stopped.
pub(crate) async fn feed(nats: Nats, endless: std::sync::Arc<Endless>) {
    let subject = nats.names().tasks(&ENDLESS.parse().unwrap());
    while !endless.stopped.load(Ordering::Relaxed) {
        let depth = nats.depth(&subject).await.unwrap();
        let queued: u64 = depth.messages.values().sum();
        for _ in queued..QUEUED_MAX {
            let n = endless.published.fetch_add(1, Ordering::Relaxed);
            publish(&nats, ENDLESS, n).await;
        }
        time_passes(FEED_EVERY).await;
    }
}

/// Adds the tasks and attempts of a job.
pub(crate) fn add(sum: &mut Counters, job: &Counters) {
    sum.succeeded += job.succeeded;
    sum.attempts += job.attempts;
}
