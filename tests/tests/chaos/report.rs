//! What is found when all is over: each task by its records and by what it did, and one table.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::SystemTime;

use air_protocol::event::{Event, Kind};
use air_protocol::job::JobStatus;
use air_protocol::names::JobName;
use air_protocol::record::{Record, Status};
use air_protocol::time::Time;
use air_tests::{Installation, wait_for_within};
use serde_json::json;

use crate::faults::{Faults, Happened};
use crate::load::{OUTAGE_MAX, Published};
use crate::marks::{self, uptime};
use crate::schedule::Fault;

/// Something that must not be, and when.
struct Wrong {
    at: f64,
    kind: Kinds,
    text: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kinds {
    Lost,
    Twice,
    Overlap,
    Effect,
}

/// Waits until every job has ended, however long its queue is, as long as it gets on.
pub(crate) async fn all_ended(air: &Installation) {
    for job in air.acknowledged().into_keys() {
        let mut seen = None;
        while !ended_or_got_on(air, &job, &mut seen).await {}
    }
}

/// Whether the job has ended; otherwise it has got on since `seen`, and stands there now.
async fn ended_or_got_on(air: &Installation, job: &JobName, seen: &mut Option<u64>) -> bool {
    let before = *seen;
    let look = async || {
        let last = air.nats.last_queued(job).await;
        let last = last.map_err(|error| error.to_string())?.unwrap_or(0);
        let key = air.nats.job(job).await.map_err(|error| error.to_string())?;
        let state = key.state().ok_or("no key")?;
        match &state.status {
            JobStatus::Completed { drained } | JobStatus::Cancelled { drained }
                if *drained >= last =>
            {
                Ok((true, None))
            }
            _ if before != Some(state.last_record) => Ok((false, Some(state.last_record))),
            _ => Err(format!("{last} {state:?}")),
        }
    };
    let what = format!("end of {job}, nor another record");
    let (ended, stands_at) = wait_for_within(OUTAGE_MAX, &what, look).await;
    *seen = stands_at;
    ended
}

/// Reads everything and prints the table; panics if anything is wrong.
pub(crate) async fn report(faults: &Faults, published: &Published) {
    let air = &faults.cluster.air;
    let offset = Time::from(SystemTime::now()).as_millis() as f64 / 1000.0 - uptime();
    let on_clock = |time: Time| time.as_millis() as f64 / 1000.0 - offset;
    let mut records = BTreeMap::new();
    for job in air.acknowledged().into_keys() {
        let all: Vec<_> = air.records(job.as_str()).await;
        records.insert(
            job,
            all.into_iter()
                .map(|(_, record)| record)
                .collect::<Vec<_>>(),
        );
    }
    let events = air.events(None).await;
    keep(air.server.folder(), &events, &records);
    let runs = marks::read(&air.server.folder().join("marks"));
    let mut wrong = once(&records, published, on_clock);
    wrong.extend(effects(&records, &runs, on_clock));
    let overlaps = marks::overlaps(&runs, &faults.frozen);
    for overlap in &overlaps {
        if overlap.permitted {
            eprintln!(
                "permitted, since a runner was frozen: {}: {}",
                overlap.job, overlap.text
            );
        } else {
            wrong.push(Wrong {
                at: overlap.at,
                kind: Kinds::Overlap,
                text: format!("{}: {}", overlap.job, overlap.text),
            });
        }
    }
    let committed = events
        .iter()
        .filter(|event| event.known_kind() == Some(Kind::Committed));
    let mut commits: Vec<f64> = committed.map(|event| on_clock(event.time)).collect();
    commits.sort_by(f64::total_cmp);
    totals(
        &records,
        &runs,
        overlaps.iter().filter(|overlap| overlap.permitted).count(),
    );
    table(&faults.happened, &wrong, &commits);
    let texts: Vec<_> = wrong
        .iter()
        .map(|wrong| format!("{:9.2} {}", wrong.at, wrong.text))
        .collect();
    assert!(
        texts.is_empty(),
        "{} wrong:\n{}",
        texts.len(),
        texts.join("\n")
    );
}

/// Writes what was read into the folder that is kept when something is wrong.
fn keep(folder: &Path, events: &[Event], records: &BTreeMap<JobName, Vec<Record>>) {
    let lines = |values: Vec<serde_json::Value>| {
        let texts: Vec<_> = values.iter().map(ToString::to_string).collect();
        texts.join("\n")
    };
    let events = events.iter().map(|event| json!(event)).collect();
    std::fs::write(folder.join("events.jsonl"), lines(events)).unwrap();
    let records = records.iter().flat_map(|(job, records)| {
        let with_job = move |record| json!({ "job": job, "record": record });
        records.iter().map(with_job)
    });
    std::fs::write(folder.join("records.jsonl"), lines(records.collect())).unwrap();
}

/// Every acknowledged task, and every child of one that succeeded, has one final record; no attempt has two.
fn once(
    records: &BTreeMap<JobName, Vec<Record>>,
    published: &Published,
    on_clock: impl Fn(Time) -> f64,
) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    let of = |job: &str, task: &str| -> Vec<&Record> {
        let all = records
            .get(&job.parse::<JobName>().unwrap())
            .into_iter()
            .flatten();
        all.filter(|record| record.task.as_str() == task).collect()
    };
    let finals = |job: &str, task: &str| {
        let all = of(job, task);
        all.into_iter()
            .filter(|record| record.status.is_final())
            .count()
    };
    for (task, at) in &published.tasks {
        let mut tell = |job: &str, id: &str, wanted: usize| {
            let found = finals(job, id);
            if found != wanted {
                let kind = if found < wanted {
                    Kinds::Lost
                } else {
                    Kinds::Twice
                };
                let text = format!("{job}/{id} has {found} final records, not {wanted}");
                wrong.push(Wrong {
                    at: *at,
                    kind,
                    text,
                });
            }
        };
        tell(&task.job, &task.id, 1);
        let succeeded = of(&task.job, &task.id)
            .iter()
            .any(|record| record.status == Status::Succeeded);
        for (job, child) in &task.children {
            tell(job, child, usize::from(succeeded));
        }
    }
    for (job, records) in records {
        let mut attempts = BTreeSet::new();
        for record in records {
            if !attempts.insert((&record.task, record.attempt)) {
                wrong.push(Wrong {
                    at: on_clock(record.ended),
                    kind: Kinds::Twice,
                    text: format!(
                        "{job}/{} has two records of attempt {}",
                        record.task, record.attempt
                    ),
                });
            }
        }
    }
    wrong
}

/// Every record `succeeded` stands for a run that came to its end.
fn effects(
    records: &BTreeMap<JobName, Vec<Record>>,
    runs: &BTreeMap<JobName, Vec<marks::Run>>,
    on_clock: impl Fn(Time) -> f64,
) -> Vec<Wrong> {
    let done: BTreeSet<_> = runs
        .values()
        .flatten()
        .filter(|run| run.done)
        .map(|run| run.run)
        .collect();
    let mut wrong = Vec::new();
    for (job, records) in records.iter().filter(|(job, _)| job.as_str() != "probe") {
        for record in records
            .iter()
            .filter(|record| record.status == Status::Succeeded)
        {
            if !record.run.is_some_and(|run| done.contains(&run)) {
                wrong.push(Wrong {
                    at: on_clock(record.ended),
                    kind: Kinds::Effect,
                    text: format!(
                        "{job}/{} succeeded, but its run left no mark of its end",
                        record.task
                    ),
                });
            }
        }
    }
    wrong
}

fn totals(
    records: &BTreeMap<JobName, Vec<Record>>,
    runs: &BTreeMap<JobName, Vec<marks::Run>>,
    permitted: usize,
) {
    let all: Vec<_> = records.values().flatten().collect();
    let count = |status: Status| all.iter().filter(|record| record.status == status).count();
    let lost = all.iter().filter(|record| record.lost).count();
    let executions: usize = runs.values().map(Vec::len).sum();
    let mut done: BTreeMap<_, usize> = BTreeMap::new();
    for (job, runs) in runs {
        for run in runs.iter().filter(|run| run.done) {
            *done.entry((job, &run.task)).or_default() += 1;
        }
    }
    let again = done.values().filter(|times| **times > 1).count();
    eprintln!(
        "{} succeeded, {} failed, {} cancelled, {} skipped, {} retrying; {lost} attempts of lost runners",
        count(Status::Succeeded),
        count(Status::Failed),
        count(Status::Cancelled),
        count(Status::Skipped),
        count(Status::Retrying)
    );
    eprintln!(
        "{executions} executions, {again} tasks executed to the end more than once, {permitted} permitted overlaps"
    );
}

/// One line for each kind of fault. What is wrong counts for the fault that began last before it.
fn table(happened: &[Happened], wrong: &[Wrong], commits: &[f64]) {
    eprintln!(
        "| fault | times | tasks running | lost | committed twice | overlaps | longest recovery, s | fresh task, s | longest silence, s | first acknowledgement, s |"
    );
    eprintln!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for kind in Fault::ALL {
        let (mut times, mut running) = (0, 0);
        let (mut recovery, mut fresh, mut silence) = (0_f64, 0_f64, 0_f64);
        let mut counts = [0; 3];
        let mut acknowledged = Vec::new();
        for (place, one) in happened.iter().enumerate() {
            if one.fault != kind {
                continue;
            }
            let end = happened
                .get(place + 1)
                .map_or(f64::INFINITY, |next| next.begun);
            times += 1;
            running += one.running;
            fresh = fresh.max(one.fresh);
            acknowledged.extend(one.acknowledged.map(|time| format!("{time:.1}")));
            let next = commits.iter().find(|at| **at >= one.healed);
            recovery = recovery.max(next.map_or(f64::INFINITY, |next| next - one.healed));
            let within = commits
                .iter()
                .filter(|at| (one.begun..one.healed + one.fresh).contains(at));
            let mut before = one.begun;
            for at in within.chain([&(one.healed + one.fresh)]) {
                silence = silence.max(at - before);
                before = *at;
            }
            for (count, kind) in counts
                .iter_mut()
                .zip([Kinds::Lost, Kinds::Twice, Kinds::Overlap])
            {
                let ours =
                    |wrong: &&Wrong| wrong.kind == kind && (one.begun..end).contains(&wrong.at);
                *count += wrong.iter().filter(ours).count();
            }
        }
        if times == 0 {
            continue;
        }
        let [lost, twice, overlaps] = counts;
        eprintln!(
            "| {} | {times} | {running} | {lost} | {twice} | {overlaps} | {recovery:.1} | {fresh:.1} | {silence:.1} | {} |",
            kind.as_str(),
            acknowledged.join(" ")
        );
    }
}
