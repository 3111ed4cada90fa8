//! Faults, injected into a cluster and healed; and how long it took until work went on.

use std::collections::BTreeSet;
use std::time::Duration;

use air_protocol::names::TaskId;
use air_tests::{Cluster, runners, time_passes, wait_for_within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use uuid::Uuid;

use crate::load::{OUTAGE_MAX, publish};
use crate::marks::{MARK, uptime};
use crate::schedule::{Fault, Step};

/// Between two tries to publish while a leader is chosen.
const PROBE: Duration = Duration::from_millis(100);
/// Runners that one fault hits.
const RUNNERS: usize = 3;

/// A fault that happened; moments are those of the marks' clock.
#[derive(Debug)]
pub(crate) struct Happened {
    pub(crate) fault: Fault,
    pub(crate) begun: f64,
    pub(crate) healed: f64,
    /// Tasks that ran when it began.
    pub(crate) running: usize,
    /// Seconds to the first acknowledged publish, where the leader was killed or frozen.
    pub(crate) acknowledged: Option<f64>,
    /// Seconds from the healing to the record of a task that was published then.
    pub(crate) fresh: f64,
}

/// Injects one fault after another, each when the one before is over.
pub(crate) struct Faults {
    pub(crate) cluster: Cluster,
    pub(crate) happened: Vec<Happened>,
    /// Runs whose runner was frozen.
    pub(crate) frozen: BTreeSet<Uuid>,
}

impl Faults {
    /// One fault, its healing, and the proof that work goes on.
    pub(crate) async fn step(&mut self, number: usize, step: &Step) {
        let running = runners().len();
        let begun = uptime();
        eprintln!(
            "{begun:9.2} fault {number}: {} (machine {}, {:.1} s), {running} tasks run",
            step.fault.as_str(),
            step.node,
            step.lasts.as_secs_f64()
        );
        let acknowledged = self.inject(number, step).await;
        let healed = uptime();
        let fallen = self.cluster.fallen();
        assert!(fallen.is_empty(), "ended by themselves: {fallen:?}");
        self.fresh_task(number).await;
        let fresh = uptime() - healed;
        let acknowledgement = acknowledged
            .map(|time| format!("; first acknowledgement after {time:.1} s"))
            .unwrap_or_default();
        eprintln!(
            "{:9.2} healed at {healed:.2}; a fresh task was done after {fresh:.1} s{acknowledgement}",
            uptime()
        );
        self.happened.push(Happened {
            fault: step.fault,
            begun,
            healed,
            running,
            acknowledged,
            fresh,
        });
        time_passes(step.calm).await;
    }

    /// A task published now is recorded.
    async fn fresh_task(&self, number: usize) {
        let (id, line) = (format!("g{number}"), format!("{MARK}; mark S; mark E"));
        let body = json!({ "id": id, "run": line }).to_string();
        publish(&self.cluster.clients, "gate", &body).await;
        let (job, task): (_, TaskId) = ("gate".parse().unwrap(), id.parse().unwrap());
        self.cluster
            .air
            .note_acknowledged("gate".parse().unwrap(), task.clone());
        let last = async || {
            let client = &self.cluster.air.nats;
            let record = client
                .last_record(&job, &task)
                .await
                .map_err(|error| error.to_string())?;
            record.ok_or_else(|| "no record".to_owned())
        };
        wait_for_within(OUTAGE_MAX, "record of a fresh task", last).await;
    }

    /// Lets a fault happen and heals it.
    async fn inject(&mut self, number: usize, step: &Step) -> Option<f64> {
        let (node, lasts) = (step.node, step.lasts);
        match step.fault {
            Fault::KillServer => self.server_killed(number, node, lasts, false).await,
            Fault::FreezeServer => self.server_frozen(number, node, lasts, false).await,
            Fault::KillLeader => {
                let leader = self.cluster.leader().await;
                return self.server_killed(number, leader, lasts, true).await;
            }
            Fault::FreezeLeader => {
                let leader = self.cluster.leader().await;
                return self.server_frozen(number, leader, lasts, true).await;
            }
            Fault::StepDown => {
                let line = ["stream", "cluster", "step-down", "AIR", "--force"];
                let _ = self.cluster.air.nats_cli(&line).output().unwrap();
                None
            }
            Fault::KillManager => {
                self.cluster.kill_manager(node);
                time_passes(lasts).await;
                self.cluster.start_manager(node);
                None
            }
            Fault::FreezeManager => {
                self.cluster.signal_manager(node, Signal::SIGSTOP);
                time_passes(lasts).await;
                self.cluster.signal_manager(node, Signal::SIGCONT);
                None
            }
            Fault::KillRunners | Fault::FreezeRunners => {
                self.some_runners(step).await;
                None
            }
            Fault::RollingRestart => {
                for node in 1..=3 {
                    self.cluster.kill_server(node);
                    time_passes(lasts).await;
                    self.cluster.start_server(node);
                    time_passes(lasts).await;
                }
                None
            }
            Fault::KillAll => {
                for node in 1..=3 {
                    self.cluster.kill_server(node);
                }
                time_passes(lasts).await;
                for node in 1..=3 {
                    self.cluster.start_server(node);
                }
                None
            }
            Fault::FullDisk => {
                self.disk_full(node, lasts).await;
                None
            }
            Fault::CutOne
            | Fault::CutTwo
            | Fault::DeafOne
            | Fault::MuteOne
            | Fault::Loss
            | Fault::Slow => {
                self.network(step).await;
                None
            }
        }
    }

    /// The server has given its streams up, and reads its disk anew only when it starts.
    async fn disk_full(&mut self, node: usize, lasts: Duration) {
        let said = self.cluster.server_log(node).len();
        self.cluster.node(node).fill_disk();
        time_passes(lasts).await;
        wait_for_within(OUTAGE_MAX, "word of a full disk", async || {
            let log = self.cluster.server_log(node);
            let full = log[said..].contains("no space left on device");
            full.then_some(()).ok_or("none")
        })
        .await;
        self.cluster.node(node).clear_disk();
        self.cluster.kill_server(node);
        self.cluster.start_server(node);
    }

    async fn server_killed(
        &mut self,
        number: usize,
        node: usize,
        lasts: Duration,
        probed: bool,
    ) -> Option<f64> {
        self.cluster.kill_server(node);
        let acknowledged = self.probe(number, lasts, probed).await;
        self.cluster.start_server(node);
        acknowledged
    }

    async fn server_frozen(
        &mut self,
        number: usize,
        node: usize,
        lasts: Duration,
        probed: bool,
    ) -> Option<f64> {
        self.cluster.signal_server(node, Signal::SIGSTOP);
        let acknowledged = self.probe(number, lasts, probed).await;
        self.cluster.signal_server(node, Signal::SIGCONT);
        acknowledged
    }

    /// Lets the time of a fault pass. Where it is about a leader, publishes over each server again and again, and tells
    /// after how many seconds the first publish was acknowledged; the fault lasts until then at least.
    async fn probe(&self, number: usize, lasts: Duration, probed: bool) -> Option<f64> {
        if !probed {
            time_passes(lasts).await;
            return None;
        }
        let begun = uptime();
        let (sender, mut first) = tokio::sync::mpsc::unbounded_channel();
        let mut tries = tokio::task::JoinSet::new();
        let mut acknowledged = None;
        let mut n = 0;
        while acknowledged.is_none() && uptime() - begun < OUTAGE_MAX.as_secs_f64() {
            // Not at once: a signal takes a moment to reach a process with many threads.
            time_passes(PROBE).await;
            let client = self.cluster.clients[n % 3].clone();
            let body = json!({ "id": format!("p{number}-{n}"), "exec": ["true"] }).to_string();
            let sender = sender.clone();
            tries.spawn(async move {
                let job = "probe".parse().unwrap();
                let publish = client.publish_task(&job, None, body.into_bytes(), None);
                if publish.await.is_ok() {
                    let _ = sender.send(uptime());
                }
            });
            n += 1;
            acknowledged = first.try_recv().ok().map(|at: f64| at - begun);
        }
        let left = lasts.as_secs_f64() - (uptime() - begun);
        time_passes(Duration::from_secs_f64(left.max(0.0))).await;
        acknowledged
    }

    async fn some_runners(&mut self, step: &Step) {
        let mut alive = runners();
        alive.sort_unstable();
        let mut hit = Vec::new();
        let mut chance = step.chance;
        while hit.len() < RUNNERS && !alive.is_empty() {
            let place = usize::try_from(chance % alive.len() as u64).unwrap();
            chance /= 16;
            hit.push(alive.swap_remove(place));
        }
        let signal = |signal| {
            for (pid, _) in &hit {
                let _ = kill(Pid::from_raw(i32::try_from(*pid).unwrap()), signal);
            }
        };
        if step.fault == Fault::KillRunners {
            signal(Signal::SIGKILL);
        } else {
            self.frozen.extend(hit.iter().map(|(_, run)| run));
            signal(Signal::SIGSTOP);
        }
        time_passes(step.lasts).await;
        if step.fault == Fault::FreezeRunners {
            // Those that a manager has killed meanwhile are gone; their numbers are not given out again so soon.
            signal(Signal::SIGCONT);
        }
    }

    async fn network(&mut self, step: &Step) {
        const HEARS: &str = "-A INPUT -i eth0 -j DROP";
        const SAYS: &str = "-A OUTPUT -o eth0 -j DROP";
        let cluster = &self.cluster;
        let (one, two) = (cluster.node(step.node), cluster.node(step.node % 3 + 1));
        let nodes: &[_] = match step.fault {
            Fault::CutTwo => &[one, two],
            _ => &[one],
        };
        for node in nodes {
            match step.fault {
                Fault::DeafOne => node.filter(HEARS),
                Fault::MuteOne => node.filter(SAYS),
                Fault::Loss => {
                    let part = 5 + step.chance % 25;
                    node.filter(&format!(
                        "-A INPUT -i eth0 -m statistic --mode random --probability 0.{part:02} -j DROP"
                    ));
                }
                Fault::Slow => node.slow("512kbit", "400ms"),
                _ => {
                    node.filter(HEARS);
                    node.filter(SAYS);
                }
            }
        }
        time_passes(step.lasts).await;
        for node in nodes {
            node.heal();
        }
    }
}
