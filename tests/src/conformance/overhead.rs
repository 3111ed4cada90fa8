//! What a task costs until it has started, beside what the infrastructure costs by itself in the same run.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::spawn;
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::json;

use super::{Ground, Stand};
use crate::wait::wait_for;

/// An infrastructure that can be asked without Air-Executor.
pub trait Alone: Stand {
    /// What is measured, as a person calls it.
    fn name(&self) -> &'static str;

    /// Runs what opens the pipe, by the infrastructure's own means, to its end.
    fn alone(&self, ground: &Ground, started: &Started) -> impl Future<Output = ()>;
}

/// Prints the median time to start, by the infrastructure alone and by a task on it, each `AIR_OVERHEAD_ROUNDS` times in turn.
pub async fn overhead(stand: &impl Alone) {
    let rounds = std::env::var("AIR_OVERHEAD_ROUNDS");
    let rounds: usize = rounds.map_or(1, |rounds| rounds.parse().unwrap());
    let mut ground = Ground::new(stand).await;
    ground.manager(stand, "");
    ground.is_up().await;
    let (mut alone, mut task) = (Vec::new(), Vec::new());
    // The first of each is not counted: connections are made, and caches filled.
    for round in 0..=rounds {
        let started = Started::at(ground.file(&format!("alone-{round}")));
        let asked = Instant::now();
        stand.alone(&ground, &started).await;
        alone.push(started.opened().await - asked);
        let started = Started::at(ground.file(&format!("task-{round}")));
        let run = json!({ "id": "t", "run": started.line(), "backend": "tested" });
        let job = format!("round-{round}");
        let asked = Instant::now();
        ground.air.publish(&job, &run.to_string()).await;
        ground.air.wait_completed(&job).await;
        task.push(started.opened().await - asked);
    }
    let (alone, task) = (median(&mut alone[1..]), median(&mut task[1..]));
    println!(
        "overhead: {} {:.1} ms, a task by Air-Executor {:.1} ms ({:.2} times), medians of {rounds}",
        stand.name(),
        alone.as_secs_f64() * 1e3,
        task.as_secs_f64() * 1e3,
        task.as_secs_f64() / alone.as_secs_f64(),
    );
}

/// A pipe that tells when it is opened for writing, whoever does.
pub struct Started {
    file: PathBuf,
    when: Arc<OnceLock<Instant>>,
}

impl Started {
    fn at(file: PathBuf) -> Self {
        mkfifo(&file, Mode::S_IRWXU).unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
        let started = Self {
            file,
            when: Arc::default(),
        };
        let (pipe, when) = (started.file.clone(), started.when.clone());
        spawn(move || {
            let mut opened = File::open(pipe).unwrap();
            when.set(Instant::now()).unwrap();
            // Who has opened it may write, too.
            std::io::copy(&mut opened, &mut std::io::sink())
        });
        started
    }

    /// Where the pipe is.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// A line of shell that opens it.
    pub fn line(&self) -> String {
        format!("echo > {}", self.file.display())
    }

    /// Waits until it was opened; when that was.
    pub async fn opened(&self) -> Instant {
        wait_for("start", async || self.when.get().copied().ok_or(&self.file)).await
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
