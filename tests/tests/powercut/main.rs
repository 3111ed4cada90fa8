//! Power cuts under load: what was acknowledged and is gone, with one server and three, by how they sync.
//!
//! Managers live through every cut, as on other machines. After each one they must go on, every job must end, and the
//! invariants must hold for what is left. Where everything is synced nothing may be lost.
//!
//! `cargo xtask powercut` runs every mode; the number of cuts comes by `AIR_POWERCUT_CUTS`, a part of the modes' names
//! by `AIR_POWERCUT_ONLY`. Without these one cut is made in each mode that syncs and loses all its servers at once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

mod disk;
mod load;
mod servers;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use air_nats::{Nats, topology::Outcome};
use air_protocol::job::JobStatus;
use air_protocol::names::JobName;
use air_tests::{Installation, Server, check, number_of, time_passes, wait_for_within};

use disk::Disk;
use load::{Load, Lost};
use servers::Servers;

/// Time under load before each cut.
const LOAD: Duration = Duration::from_secs(8);
/// The longest that servers may need to answer, and jobs to end.
const MOST: Duration = Duration::from_secs(180);
/// Time that replicas get to show what they have.
const LAG: Duration = Duration::from_secs(10);
/// Between two looks at what they have.
const PAUSE: Duration = Duration::from_millis(100);

/// How servers are set up, and which of them are cut.
struct Mode {
    name: &'static str,
    servers: usize,
    always: bool,
    all: bool,
}

#[rustfmt::skip]
const MODES: [Mode; 6] = [
    Mode { name: "one server, NATS' default sync", servers: 1, always: false, all: true },
    Mode { name: "one server, `sync_interval: always`", servers: 1, always: true, all: true },
    Mode { name: "three servers, default sync, one cut", servers: 3, always: false, all: false },
    Mode { name: "three servers, default sync, all cut at once", servers: 3, always: false, all: true },
    Mode { name: "three servers, `always`, one cut", servers: 3, always: true, all: false },
    Mode { name: "three servers, `always`, all cut at once", servers: 3, always: true, all: true },
];

/// What was counted over the cuts of a mode.
#[derive(Default)]
struct Sum {
    lost: Lost,
    again: usize,
    /// Streams that were gone as a whole, and made anew.
    streams: usize,
    committed: usize,
    loaded: Duration,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_synced_survives_a_power_cut() {
    Disk::prove().expect(
        "a power cut needs to mount an image of a disk: as root, where loop devices are allowed",
    );
    let cuts = number_of("AIR_POWERCUT_CUTS");
    let only = std::env::var("AIR_POWERCUT_ONLY").unwrap_or_default();
    let wanted = |mode: &&Mode| match cuts {
        Some(_) => mode.name.contains(&only),
        None => mode.always && mode.all,
    };
    let count = cuts.map_or(1, |cuts| usize::try_from(cuts).unwrap());
    let mut rows = Vec::new();
    let mut wrong = Vec::new();
    for mode in MODES.iter().filter(wanted) {
        let sum = cut_often(mode, count).await;
        if mode.always && sum.lost.tasks + sum.lost.commits > 0 {
            wrong.push(mode.name);
        }
        rows.push(row(mode, count, &sum));
    }
    eprintln!(
        "\n| mode | cuts | acknowledged | lost | commits lost | tasks run again | streams gone | tasks/s beside |"
    );
    eprintln!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for row in rows {
        eprintln!("{row}");
    }
    assert!(
        wrong.is_empty(),
        "synced and acknowledged, but lost: {}",
        wrong.join("; ")
    );
}

fn row(mode: &Mode, cuts: usize, sum: &Sum) -> String {
    #[allow(clippy::cast_precision_loss, reason = "for people to read")]
    let rate = sum.committed as f64 / sum.loaded.as_secs_f64();
    let Lost {
        acknowledged,
        tasks,
        commits,
    } = sum.lost;
    let (again, streams) = (sum.again, sum.streams);
    format!(
        "| {} | {cuts} | {acknowledged} | {tasks} | {commits} | {again} | {streams} | {rate:.0} |",
        mode.name
    )
}

async fn cut_often(mode: &Mode, cuts: usize) -> Sum {
    let mut servers = Servers::start(mode.servers, mode.always);
    let server = Server::elsewhere(&servers.urls());
    let mut air = Installation::on_cluster(server, mode.servers).await;
    let sync = if mode.always { "0" } else { "2m" };
    for _ in 0..2 {
        air.add_manager(&["--sync-interval", sync]);
    }
    let load = Load::new(air.server.folder());
    let mut sum = Sum::default();
    settings(&air).await;
    for cut in 0..cuts {
        servers.age();
        let before = load.seen();
        let which: Vec<_> = if mode.all {
            (0..mode.servers).collect()
        } else {
            vec![cut % mode.servers]
        };
        let started = Instant::now();
        let (committed, loaded);
        (servers, committed, loaded) = cut_under_load(servers, which, &air, &load).await;
        sum.committed += committed - before;
        sum.loaded += loaded;
        sum.streams += made_anew(&air.nats, mode.servers).await;
        settings(&air).await;
        for job in Load::jobs() {
            goes_on(&air, &job).await;
        }
        let lost = compared(&load, &air).await;
        check(&air).await;
        eprintln!(
            "{}: cut {} after {:.0} s: {} of {} tasks lost, {} commits",
            mode.name,
            cut + 1,
            started.elapsed().as_secs_f64(),
            lost.tasks,
            lost.acknowledged,
            lost.commits
        );
        sum.lost.acknowledged = lost.acknowledged + sum.lost.tasks;
        sum.lost.tasks += lost.tasks;
        sum.lost.commits += lost.commits;
    }
    sum.again = load.ran_again();
    for complaint in servers.complaints().into_iter().take(20) {
        eprintln!("{}: the server says: {complaint}", mode.name);
    }
    drop(air);
    sum
}

/// Loads the servers for a while, and cuts some of them while the load goes on.
async fn cut_under_load(
    mut servers: Servers,
    which: Vec<usize>,
    air: &Installation,
    load: &Load,
) -> (Servers, usize, Duration) {
    let stop = AtomicBool::new(false);
    let started = Instant::now();
    let cut = async {
        time_passes(LOAD).await;
        let (seen, loaded) = (load.seen(), started.elapsed());
        let cut = tokio::task::spawn_blocking(move || {
            servers.cut(&which);
            servers
        });
        let servers = cut.await.expect("servers can be cut");
        stop.store(true, Ordering::Relaxed);
        (servers, seen, loaded)
    };
    tokio::join!(load.run(&air.nats, &stop), cut).1
}

/// Waits until the servers answer; what is gone as a whole is made anew, as `airx init` does it. Gives the number of those
/// streams that lie on disks: of one server what is in its memory is gone by each restart.
async fn made_anew(nats: &Nats, replicas: usize) -> usize {
    let in_memory = [nats.names().managers_bucket(), "managers".to_owned()];
    let mut made = 0;
    wait_for_within(MOST, "servers that answer", async || {
        let found = nats.init(Some(replicas), true).await;
        let found = found.map_err(|error| error.to_string())?;
        let anew = found
            .iter()
            .filter(|found| found.outcome == Outcome::Created);
        let on_disk = anew.filter(|found| !in_memory.iter().any(|name| found.name.contains(name)));
        made += on_disk.count();
        nats.jobs_end().await.map_err(|error| error.to_string())
    })
    .await;
    made
}

/// Short leases, so that a cut is over soon; they are lost like anything else.
async fn settings(air: &Installation) {
    let spec = serde_json::from_str(
        r#"{"lease_ttl":"3s","retry":{"backoff":"10ms"},"on_failure":"continue"}"#,
    );
    let spec = spec.expect("a spec");
    for job in Load::jobs() {
        wait_for_within(MOST, "settings that are stored", async || {
            let (_, revision) = air
                .nats
                .spec(&job)
                .await
                .map_err(|error| error.to_string())?;
            let written = air.nats.write_spec(&job, &spec, revision).await;
            written.map_err(|error| error.to_string())
        })
        .await;
    }
}

/// A task that is published after the cut runs, and the job ends.
async fn goes_on(air: &Installation, job: &JobName) {
    let task = br#"{"exec":["true"]}"#.to_vec();
    wait_for_within(MOST, "task that is stored", async || {
        air.nats.publish_task(job, None, task.clone(), None).await
    })
    .await;
    wait_for_within(MOST, &format!("end of {job}"), async || {
        let last = air
            .nats
            .last_queued(job)
            .await
            .map_err(|error| error.to_string())?;
        let key = air.nats.job(job).await.map_err(|error| error.to_string())?;
        let state = key.state().ok_or("there is no state")?;
        match state.status {
            JobStatus::Completed { drained } if drained >= last.unwrap_or(0) => Ok(()),
            _ => Err(format!("{state:?}")),
        }
    })
    .await;
}

/// What is lost for good: a replica may show it late.
async fn compared(load: &Load, air: &Installation) -> Lost {
    let started = Instant::now();
    loop {
        let lost = load.compare(air, false).await;
        if lost.tasks + lost.commits == 0 || started.elapsed() > LAG {
            return load.compare(air, true).await;
        }
        time_passes(PAUSE).await;
    }
}
