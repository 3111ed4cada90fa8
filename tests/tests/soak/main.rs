//! The soak: a load that goes on, through three managers. Nothing that they or the server hold may grow with it, and what is
//! finished is purged when its time (`keep`) is over, job by job, also of a job that never ends.
//!
//! `cargo xtask soak` runs the long form; the load comes by `AIR_SOAK_TASKS` and `AIR_SOAK_JOBS`. The wall clock of the
//! managers is shifted on by hours after each wave of jobs. Start reading at [`soak`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that cannot go on panics; a table needs no more digits than a float has"
)]

mod load;
mod proc;
mod sample;
mod table;

use std::collections::VecDeque;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use air_protocol::ledger::Counters;
use air_protocol::names::JobName;
use air_tests::{Installation, Program, ServerOptions, number_of, wait_for_within};
use nix::sys::signal::Signal;

use crate::load::{ENDLESS, Endless};
use crate::sample::Sample;
use crate::table::{Table, VERIFY_KB_MAX};

/// Tasks of the bounded form, and jobs at work side by side, beside the one that never ends.
const TASKS: u64 = 1200;
const JOBS: u64 = 6;
/// Samples are taken between waves, about this many in all.
const SAMPLES: u64 = 20;
/// A job is no longer than this, however long the run is.
const JOB_TASKS_MAX: u64 = 300;
/// What the wall clock is put on by after each wave: `keep` is over after two of them.
const WAVE_HOURS: i64 = 13;
/// Waves after which records, and after which keys, must be gone: 24 h, and 24 h more since the purge.
const RECORDS_GONE: usize = 2;
const KEYS_GONE: usize = 4;
/// Records of the job that never ends that may be left beyond those of the last two waves: tasks that are open, and
/// what comes after them.
const ENDLESS_SLACK: u64 = 100;
/// The longest that anything is waited for.
const MOST: Duration = Duration::from_secs(300);

/// What a run is to do.
struct Plan {
    tasks: u64,
    jobs: u64,
    waves: u64,
    job_tasks: u64,
}

impl Plan {
    fn of_environment() -> Self {
        let tasks = number_of("AIR_SOAK_TASKS").unwrap_or(TASKS).max(100);
        let jobs = number_of("AIR_SOAK_JOBS").unwrap_or(JOBS).max(1);
        let job_tasks = (tasks / (SAMPLES * (jobs + 1))).clamp(1, JOB_TASKS_MAX);
        let waves = (tasks / (job_tasks * (jobs + 1))).max(SAMPLES);
        Self {
            tasks,
            jobs,
            waves,
            job_tasks,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_grows_with_the_load() {
    let mut air = Installation::start_on(
        ServerOptions {
            extra: "http: \"127.0.0.1:-1\"\n",
            ..ServerOptions::default()
        },
        0,
    )
    .await;
    air.shift_clocks(0, 0);
    for _ in 0..3 {
        air.add_manager_of_a_fake_clock(&["--max-runners", "4"], None);
    }
    soak(&mut air, &Plan::of_environment()).await;
}

/// Waves of jobs that end, beside a job that never does; between waves the clock is put on, and a sample is taken.
async fn soak(air: &mut Installation, plan: &Plan) {
    let begun = Instant::now();
    load::spec(air, ENDLESS).await;
    let endless = Arc::new(Endless::default());
    let feeding = tokio::spawn(load::feed(air.nats.clone(), endless.clone()));
    let (mut table, mut sum) = (Table::default(), Counters::default());
    // Jobs whose records, or keys, are still there; and the attempts of the job that never ends, wave by wave.
    let mut waves: VecDeque<Vec<String>> = VecDeque::new();
    let mut counted: VecDeque<u64> = VecDeque::from([0, 0]);
    let (mut wave, mut finished) = (0, 0);
    while finished < plan.tasks || wave < SAMPLES as i64 {
        let jobs = load::wave(air, wave, plan).await;
        for job in &jobs {
            let state = air.wait_completed_within(job, MOST).await;
            load::add(&mut sum, &state.ledger.counters);
            assert_eq!(
                state.ledger.counters.succeeded,
                load::tasks_of(plan.job_tasks),
                "{job}"
            );
        }
        waves.push_back(jobs);
        wave += 1;
        air.shift_clocks(wave * WAVE_HOURS * 3600, 0);
        finished = sum.succeeded + retention(air, &mut waves, &mut counted).await;
        if (wave as u64).is_multiple_of((plan.waves / SAMPLES).max(1)) {
            let sample = Sample::take(air).await;
            eprintln!("{finished} tasks, {:?}: {sample:?}", begun.elapsed());
            table.samples.push(sample);
        }
    }
    endless.stop();
    feeding.await.unwrap();
    let last = air.wait_completed_within(ENDLESS, MOST).await;
    let took = begun.elapsed();
    endless.check(&last.ledger.counters);
    load::add(&mut sum, &last.ledger.counters);
    no_process(air).await;
    let verify = verify(air).await;
    let holds = table.print(verify);
    eprintln!(
        "{} tasks, {} attempts, {:.0} tasks/s, {:.0} s, {wave} waves of {} jobs, {} days of `keep`",
        sum.succeeded,
        sum.attempts,
        sum.succeeded as f64 / took.as_secs_f64(),
        took.as_secs_f64(),
        plan.jobs,
        wave * WAVE_HOURS / 24
    );
    stop_managers(air).await;
    assert!(holds, "something grows; see the table");
    assert!(verify <= VERIFY_KB_MAX);
}

/// Waits until what is older than `keep` is gone: records first, keys later, and all but the newest records of the job
/// that never ends. Its user then deletes the spec of a job that is gone. Gives how many tasks of the job that never ends
/// have succeeded.
async fn retention(
    air: &Installation,
    waves: &mut VecDeque<Vec<String>>,
    counted: &mut VecDeque<u64>,
) -> u64 {
    let old = waves.len().saturating_sub(RECORDS_GONE - 1);
    for job in waves.iter().take(old).flatten() {
        wait_for_within(MOST, &format!("purge of {job}"), async || {
            let name: JobName = job.parse().unwrap();
            let (left, _) = air.nats.records_after(&name, 0, 1).await.unwrap();
            left.first().map_or(Ok(()), |(seq, _)| Err(*seq))
        })
        .await;
    }
    if waves.len() >= KEYS_GONE {
        for job in waves.pop_front().unwrap() {
            wait_for_within(MOST, &format!("end of the key of {job}"), async || {
                air.state(&job)
                    .await
                    .map_or(Ok(()), |state| Err(state.updated))
            })
            .await;
            load::delete_spec(air, &job).await;
        }
    }
    let before = counted.pop_front().unwrap();
    let most = ENDLESS_SLACK;
    let now = wait_for_within(MOST, "purge of the job that never ends", async || {
        let records = sample::records(air, ENDLESS).await;
        let Some(state) = air.state(ENDLESS).await else {
            return Err((0, records));
        };
        let counters = state.ledger.counters;
        if records <= counters.attempts.saturating_sub(before) + most {
            Ok(counters)
        } else {
            Err((counters.attempts - before + most, records))
        }
    })
    .await;
    counted.push_back(now.attempts);
    now.succeeded
}

/// Every runner and task is a child of a manager, or becomes one; none may be left.
async fn no_process(air: &Installation) {
    wait_for_within(MOST, "end of all processes", async || {
        let managers: Vec<_> = air.managers.iter().map(Program::pid).collect();
        let left = proc::children(&managers);
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
}

/// Runs `airx verify`, which must find nothing; gives the most memory that it had, in KiB.
async fn verify(air: &Installation) -> u64 {
    let mut command = Command::new(air_tests::binary("airx"));
    command.arg("verify").env("NATS_URL", air.server.url());
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut peak = 0;
    let status = wait_for_within(4 * MOST, "end of airx verify", async || {
        peak = proc::status(child.id(), "VmHWM:").unwrap_or(0).max(peak);
        child.try_wait().unwrap().ok_or("it runs")
    })
    .await;
    assert!(status.success(), "airx verify: {status}");
    peak
}

async fn stop_managers(air: &mut Installation) {
    for manager in &mut air.managers {
        manager.signal(Signal::SIGTERM);
        wait_for_within(MOST, "end of a manager", async || {
            if manager.has_ended() {
                Ok(())
            } else {
                Err("it runs")
            }
        })
        .await;
    }
}
