//! The load: tasks that fail at first, queue others, need others of their own and of other jobs, or are cancelled.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use air_model::simulation::plan::Dice;
use air_nats::Nats;
use air_protocol::names::JobName;
use air_tests::{Cluster, time_passes, wait_for_within};
use serde_json::json;

use crate::marks::{MARK, uptime};

/// Jobs of the load.
pub(crate) const JOBS: u64 = 20;
/// An attempt to publish gets this long; then another server is asked.
const PUBLISH_MAX: Duration = Duration::from_secs(2);
/// Nothing is unavailable for longer.
pub(crate) const OUTAGE_MAX: Duration = Duration::from_secs(120);

/// One task of the load.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) job: String,
    pub(crate) id: String,
    pub(crate) body: String,
    /// Job and id of what it queues when it succeeds.
    pub(crate) children: Vec<(String, String)>,
    cancel: bool,
}

/// What was published, and when it was acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(crate) tasks: Vec<(Planned, f64)>,
    /// Jobs that were cancelled as a whole.
    pub(crate) cancelled: BTreeSet<String>,
}

/// The task number `n` of a seed.
pub(crate) fn plan(seed: u64, n: u64) -> Planned {
    let mut random = Dice::new(seed ^ n.wrapping_mul(0xa076_1d64_78bd_642f));
    let job = |number: u64| format!("job{number}");
    let own = n % JOBS;
    let (id, mut beats) = (format!("t{n}"), random.below(5));
    let (mut before, mut after) = (String::new(), String::new());
    let (mut children, mut needs, mut cancel) = (Vec::new(), Vec::new(), false);
    match random.below(10) {
        0 | 1 => before = "test $AIR_ATTEMPT -ge 2 || exit 1; ".into(),
        2 | 3 => {
            let other = job(random.below(JOBS));
            let line = format!("{MARK}; mark S; mark E");
            for (job, child) in [(job(own), format!("{id}-a")), (other, format!("{id}-b"))] {
                let task = json!({ "id": child, "job": job, "run": line });
                after += &format!("cat >> $AIR_TASKS <<'END'\n{task}\nEND\n");
                children.push((job, child));
            }
        }
        4 if n >= JOBS => needs.push(format!("t{}", n - JOBS)),
        5 if n >= JOBS => {
            let needed = n - 1 - random.below(JOBS.min(n - 1));
            needs.push(elsewhere(needed));
        }
        6 => (beats, cancel) = (15, true),
        // It outlives the lease of a runner that is frozen or cut off.
        7 if random.below(4) == 0 => beats = 50,
        _ => {}
    }
    let run = format!(
        "{MARK}; mark S; {before}i=0; while test $i -lt {beats}; do sleep 0.2; mark B; i=$((i+1)); done\n{after}mark E"
    );
    let needs: Vec<_> = needs
        .into_iter()
        .map(|task| json!({ "task": task, "when": "done" }))
        .collect();
    let body = json!({ "id": id, "run": run, "needs": needs, "retry": { "backoff": "200ms", "max_backoff": "1s" } });
    Planned {
        job: job(own),
        id,
        body: body.to_string(),
        children,
        cancel,
    }
}

/// A task of a job that will be cancelled as a whole.
fn doomed(n: u64) -> String {
    let run = format!("{MARK}; mark S; sleep 0.4; mark E");
    json!({ "id": format!("d{n}"), "run": run }).to_string()
}

fn elsewhere(task: u64) -> String {
    format!("job{}/t{task}", task % JOBS)
}

/// Publishes until one of the servers acknowledges it. The id makes a repetition harmless.
pub(crate) async fn publish(clients: &[Nats], job: &str, body: &str) {
    let name: JobName = job.parse().unwrap();
    let turn = AtomicUsize::new(0);
    wait_for_within(OUTAGE_MAX, "acknowledgement", async || {
        let client = &clients[turn.fetch_add(1, Ordering::Relaxed) % clients.len()];
        let publish = client.publish_task(&name, None, body.as_bytes().to_vec(), None);
        match tokio::time::timeout(PUBLISH_MAX, publish).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer".to_owned()),
        }
    })
    .await;
}

/// Writes the specs of the jobs: most have short leases.
pub(crate) async fn specs(cluster: &Cluster) {
    let marks = cluster.air.server.folder().join("marks");
    std::fs::create_dir(&marks).unwrap();
    let jobs = (0..JOBS).map(|job| format!("job{job}"));
    let others = ["gate", "probe", "doomed1", "doomed2", "doomed3"];
    for (number, job) in jobs.chain(others.map(str::to_owned)).enumerate() {
        let ttl = if number % 4 == 3 { "30s" } else { "6s" };
        let spec = json!({ "on_failure": "continue", "lease_ttl": ttl, "env": { "MARKS": marks } });
        cluster.air.spec(&job, &spec.to_string()).await;
    }
}

/// Publishes the whole load, spread over the time.
pub(crate) async fn run(
    clients: Vec<Nats>,
    url: String,
    seed: u64,
    tasks: u64,
    time: Duration,
) -> Published {
    let (begun, mut published) = (Instant::now(), Published::default());
    let mut verbs = Vec::new();
    for n in 0..tasks {
        let due = time.mul_f64(n as f64 / tasks as f64);
        time_passes(due.saturating_sub(begun.elapsed())).await;
        let planned = plan(seed, n);
        publish(&clients, &planned.job, &planned.body).await;
        if planned.cancel {
            verbs.push(cancel(&url, &planned.job, Some(&planned.id)));
        }
        published.tasks.push((planned, uptime()));
        for quarter in 1..=3 {
            if n == quarter * tasks / 4 {
                let job = format!("doomed{quarter}");
                for n in 0..10 {
                    publish(&clients, &job, &doomed(n)).await;
                }
                verbs.push(cancel(&url, &job, None));
                published.cancelled.insert(job);
            }
        }
    }
    for verb in verbs {
        verb.await.unwrap();
    }
    published
}

/// Runs `airx cancel` until NATS has answered it.
fn cancel(url: &str, job: &str, task: Option<&str>) -> tokio::task::JoinHandle<()> {
    let mut words = vec!["cancel".to_owned(), job.to_owned()];
    match task {
        Some(task) => words.push(task.to_owned()),
        None => words.push("--no-wait".to_owned()),
    }
    let url = url.to_owned();
    tokio::task::spawn_local(wait_for_within(
        OUTAGE_MAX,
        "answer to cancel",
        async move || {
            let mut command = std::process::Command::new(air_tests::binary("airx"));
            command.args(&words).env("NATS_URL", &url);
            let output = tokio::task::spawn_blocking(move || command.output());
            let output = output.await.unwrap().unwrap();
            // 1: it is over already. 3: no manager has seen the job yet.
            match output.status.code() {
                Some(0 | 1) => Ok(()),
                _ => Err(output),
            }
        },
    ))
}
