//! The quick benchmark: a chain, many jobs, publish to start, and doing nothing.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use air_protocol::record::Record;
use air_tests::{Installation, ServerOptions};

/// Tasks of the chain.
const CHAIN: usize = 500;
/// Jobs that run side by side, and tasks of each.
const JOBS: usize = 200;
const TASKS: usize = 5;
/// Single tasks published to an idle system.
const SINGLES: usize = 100;
/// Time for which an idle manager is watched.
const IDLE: Duration = Duration::from_secs(10);
/// The longest that any part may take.
const MOST: Duration = Duration::from_secs(300);

/// A way in which the server writes its files.
struct Mode {
    name: &'static str,
    sync_always: bool,
}

const LAZY: Mode = Mode {
    name: "lazy sync",
    sync_always: false,
};
const SYNCED: Mode = Mode {
    name: "sync always (airx dev)",
    sync_always: true,
};

/// Measures and prints everything.
pub(crate) async fn run() {
    println!("{:<44} {:>12} {:>14}", "what", "measured", "x fork+exec");
    let fork = fork_exec();
    row("fork + exec of `true`", &millis(fork), fork, fork);
    for mode in [LAZY, SYNCED] {
        chain(&mode, fork).await;
        many_jobs(&mode, fork).await;
    }
    publish_to_start(fork).await;
    idle().await;
}

fn row(what: &str, measured: &str, time: Duration, fork: Duration) {
    println!(
        "{what:<44} {measured:>12} {:>14.1}",
        time.as_secs_f64() / fork.as_secs_f64()
    );
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

/// What the operating system alone needs for one process.
fn fork_exec() -> Duration {
    let rounds: u32 = 500;
    let start = Instant::now();
    for _ in 0..rounds {
        let status = Command::new("/bin/true").stdin(Stdio::null()).status();
        assert!(status.expect("/bin/true can be started").success());
    }
    start.elapsed() / rounds
}

async fn installation(mode: &Mode) -> Installation {
    let options = ServerOptions {
        sync_always: mode.sync_always,
        ..ServerOptions::default()
    };
    Installation::start_on(options, 1).await
}

/// One job, one task after another: from the first claim to the end of the last, by the records' own times.
async fn chain(mode: &Mode, fork: Duration) {
    let air = installation(mode).await;
    for _ in 0..CHAIN {
        air.publish("chain", r#"{"exec":["true"]}"#).await;
    }
    air.wait_completed_within("chain", MOST).await;
    let records: Vec<Record> = air
        .records("chain")
        .await
        .into_iter()
        .map(|(_, record)| record)
        .collect();
    assert_eq!(records.len(), CHAIN);
    let all = span(&records[CHAIN / 10..]);
    let each = all / u32::try_from(CHAIN - CHAIN / 10).expect("small");
    row(
        &format!("one job, task after task, {}", mode.name),
        &millis(each),
        each,
        fork,
    );
}

/// From the first claim to the last end.
fn span(records: &[Record]) -> Duration {
    let first = records
        .iter()
        .filter_map(|record| record.claimed)
        .min()
        .expect("claimed");
    let last = records
        .iter()
        .map(|record| record.ended)
        .max()
        .expect("ended");
    last.since(first)
}

/// Many jobs side by side: tasks per second, and machine time for each.
async fn many_jobs(mode: &Mode, fork: Duration) {
    let air = installation(mode).await;
    for task in 0..TASKS {
        for job in 0..JOBS {
            air.publish(
                &format!("job{job}"),
                &format!(r#"{{"exec":["true"],"id":"t{task}"}}"#),
            )
            .await;
        }
    }
    let mut records = Vec::new();
    for job in 0..JOBS {
        let job = format!("job{job}");
        air.wait_completed_within(&job, MOST).await;
        records.extend(
            air.records(&job)
                .await
                .into_iter()
                .map(|(_, record)| record),
        );
    }
    assert_eq!(records.len(), JOBS * TASKS);
    let all = span(&records);
    let each = all / u32::try_from(records.len()).expect("small");
    #[allow(clippy::cast_precision_loss, reason = "for people to read")]
    let rate = records.len() as f64 / all.as_secs_f64();
    row(
        &format!("{JOBS} jobs side by side, {}", mode.name),
        &format!("{rate:.0} tasks/s"),
        each,
        fork,
    );
}

/// From the moment that the server stored a task to the start of its program, in an idle system.
async fn publish_to_start(fork: Duration) {
    let air = installation(&LAZY).await;
    let mut times = Vec::new();
    for n in 0..SINGLES {
        let job = format!("single{n}");
        air.publish(&job, r#"{"exec":["true"]}"#).await;
        air.wait_completed_within(&job, MOST).await;
        let (_, record) = air.records(&job).await.remove(0);
        times.push(
            record
                .started
                .expect("started")
                .since(record.queued.expect("queued")),
        );
    }
    times.sort_unstable();
    for (name, at) in [("p50", SINGLES / 2), ("p99", SINGLES - 1)] {
        row(
            &format!("publish to start, idle, {name}"),
            &millis(times[at]),
            times[at],
            fork,
        );
    }
}

/// What a manager needs while nothing happens.
async fn idle() {
    let air = installation(&LAZY).await;
    air.publish("one", r#"{"exec":["true"]}"#).await;
    air.wait_completed_within("one", MOST).await;
    let pid = air.managers[0].pid();
    let before = cpu(pid);
    tokio::time::sleep(IDLE).await;
    let used = cpu(pid).saturating_sub(before);
    let percent = used.as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    println!(
        "{:<44} {:>12}",
        "idle manager, CPU",
        format!("{percent:.2} %")
    );
    println!(
        "{:<44} {:>12}",
        "idle manager, resident memory",
        format!("{:.1} MB", resident_mb(pid))
    );
}

/// CPU time that a process has used, from the kernel's own count (in clock ticks of 10 ms).
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the manager lives");
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(10 * ticks)
}

fn resident_mb(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the manager lives");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("the kernel tells it");
    let kb: f64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .expect("a number");
    kb / 1024.0
}
