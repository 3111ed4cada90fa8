//! The loop of a manager: hears news, keeps the agenda, and looks at jobs side by side.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use air_nats::jobs::Key;
use air_nats::managers::Heartbeat;
use air_protocol::event::{Data, Kind};
use air_protocol::job::JobStatus;
use air_protocol::names::JobName;
use air_protocol::time::Time;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::advance::{Failed, Outcome, advance};
use crate::agenda::Agenda;
use crate::backend::process::{self, Exit};
use crate::backlog::Backlog;
use crate::decide::Rest;
use crate::feeds::News;
use crate::leases::{Leases, Suspect, Why};
use crate::recover::recover;
use crate::shared::Shared;
use crate::{OnStop, Options};

mod hear;
mod poll;
mod start;

pub(crate) use start::run;

/// Looks that need no place for a runner and may happen at once.
const LOOKS_MAX: usize = 32;
/// Time between two looks at leases and due jobs.
const TICK: Duration = Duration::from_millis(250);
/// Time that the manager whose runner gave a job back has before others look at it.
const OTHERS_AFTER: Duration = Duration::from_millis(100);
/// Time that looks under way get to end when the manager stops.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// Time after which a failed look is repeated.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What a task of the loop brings back.
enum Done {
    Look(JobName, Box<Backlog>, Result<Outcome, Failed>),
    Recovery(JobName),
    Poll(Result<poll::Sight, air_nats::Error>),
    Live(HashSet<Uuid>),
    Nothing,
}

/// What the watch says of a job that somebody works on, or may.
struct Known {
    key: Key,
}

/// What is remembered of a job that is over.
#[derive(Debug, Clone, Copy)]
struct Quiet {
    /// Stream sequence of the last record folded in.
    accounted: u64,
    /// When its key was last written.
    updated: Time,
}

struct Control {
    shared: Arc<Shared>,
    options: Options,
    agenda: Agenda,
    leases: Leases,
    /// Jobs whose key is not final, by what the watch says.
    known: HashMap<JobName, Known>,
    /// Jobs whose key is final.
    quiet: HashMap<JobName, Quiet>,
    backlogs: HashMap<JobName, Box<Backlog>>,
    recovering: HashSet<JobName>,
    /// Jobs that a wake-up named and that were not looked at since.
    woken: HashSet<JobName>,
    tasks: JoinSet<Done>,
    looks: usize,
    revision: u64,
    /// The revision of the last poll, at which the watch must be by the next one.
    polled: u64,
    /// Where the walk over quiet jobs goes on.
    walk: usize,
    remake: watch::Sender<u64>,
    room: watch::Sender<usize>,
    beat: watch::Sender<Heartbeat>,
}

impl Control {
    async fn run(
        mut self,
        mut news: mpsc::Receiver<News>,
        mut exits: mpsc::UnboundedReceiver<Exit>,
        shutdown: impl Future<Output = ()>,
    ) {
        tokio::pin!(shutdown);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut poll = tokio::time::interval(self.options.poll);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut link = self.shared.nats.link();
        tracing::info!(manager = %self.shared.me.id, runners_max = self.options.runners_max, "manager started");
        self.tell(Kind::ManagerUp).await;
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(one) = news.recv() => {
                    self.hear(one).await;
                    while let Ok(one) = news.try_recv() {
                        self.hear(one).await;
                    }
                }
                Some(exit) = exits.recv() => self.on_exit(exit),
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => match done {
                    Ok(done) => self.on_done(done),
                    Err(error) => tracing::error!(%error, "a task of the manager broke: a bug"),
                },
                _ = tick.tick() => self.on_tick(),
                _ = poll.tick() => self.start_poll(),
                Ok(()) = link.changed() => {
                    let up = link.borrow_and_update().up;
                    self.leases.link(up, Instant::now());
                }
            }
            self.start_looks();
        }
        self.stop(&mut exits).await;
    }

    /// Claims nothing more; lets what is under way end; waits for the runners if that is wanted.
    async fn stop(&mut self, exits: &mut mpsc::UnboundedReceiver<Exit>) {
        self.room.send_replace(0);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_WITHIN, ended).await.is_err() {
            tracing::warn!("NATS does not answer; what was under way is left to other managers");
            self.tasks.abort_all();
            return;
        }
        if self.options.on_stop == OnStop::HandBack {
            self.shared.backend.terminate();
        }
        while self.options.on_stop != OnStop::Leave && self.shared.backend.running() > 0 {
            if exits.recv().await.is_none() {
                break;
            }
        }
        self.tell(Kind::ManagerDown).await;
        let _ = self.shared.nats.forget_manager(&self.shared.me.id).await;
        self.shared.nats.flush().await;
        tracing::info!(manager = %self.shared.me.id, runners = self.shared.backend.running(), "manager stopped");
    }

    async fn tell(&self, kind: Kind) {
        let data = Data {
            manager: Some(self.shared.me.id.clone()),
            ..Data::default()
        };
        self.shared.nats.emit(kind, data).await;
    }

    fn on_exit(&mut self, exit: Exit) {
        let suspect = self.leases.of_runner(exit.runner);
        if !exit.clean || suspect.is_some() {
            tracing::debug!(runner = %exit.runner, clean = exit.clean, "a runner ended");
        }
        if !exit.clean {
            self.tasks.spawn(async move {
                process::kill(exit.runner).await;
                Done::Nothing
            });
        }
        // A runner that has released is gone as well: its key tells, which the watch may not have yet.
        if let Some(suspect) = suspect {
            self.start_recovery(suspect);
        }
    }

    fn start_recovery(&mut self, suspect: Suspect) {
        if !self.recovering.insert(suspect.job.clone()) {
            return;
        }
        let shared = self.shared.clone();
        self.tasks.spawn(async move {
            if let Err(error) = recover(&shared, &suspect).await {
                tracing::warn!(job = %suspect.job, %error, "could not recover; trying again");
            }
            Done::Recovery(suspect.job)
        });
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        self.agenda.tick(now);
        if self.leases.is_empty() {
            return;
        }
        for suspect in self.leases.suspects(now) {
            self.start_recovery(suspect);
        }
    }

    /// Looks for runners of this machine that live no longer, and are nobody's children.
    fn look_for_runners(&mut self) {
        let Some(realm) = self.shared.me.realm.clone() else {
            return;
        };
        let runners = self.leases.runners_in(&realm);
        if runners.is_empty() {
            return;
        }
        self.tasks.spawn(async move {
            // What cannot be looked at proves nobody dead.
            let Ok(live) = process::live_runners().await else {
                return Done::Live(HashSet::new());
            };
            let gone = runners
                .into_iter()
                .filter(|runner| !live.contains(&runner.to_string()));
            Done::Live(gone.collect())
        });
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Look(job, backlog, outcome) => self.on_looked(&job, backlog, outcome),
            Done::Recovery(job) => {
                self.recovering.remove(&job);
            }
            Done::Live(gone) => {
                for runner in gone {
                    if let Some(suspect) = self.leases.of_runner(runner) {
                        self.start_recovery(Suspect {
                            why: Why::ProcessGone,
                            ..suspect
                        });
                    }
                }
            }
            Done::Nothing => {}
            Done::Poll(Ok(sight)) => self.on_poll(sight),
            Done::Poll(Err(error)) => tracing::warn!(%error, "could not poll"),
        }
    }

    fn on_looked(
        &mut self,
        job: &JobName,
        backlog: Box<Backlog>,
        outcome: Result<Outcome, Failed>,
    ) {
        self.looks -= 1;
        let now = Instant::now();
        let mut keep = !backlog.is_empty();
        match outcome {
            Ok(Outcome::Started) => keep = true,
            Ok(Outcome::Full) => {
                keep = true;
                self.agenda.again(job);
            }
            Ok(Outcome::Rest(Rest::OtherBackend)) if self.woken.contains(job) => self.pass_on(job),
            Ok(Outcome::Rest(Rest::Held(until))) => {
                let wait = until.since(crate::shared::now()) + Duration::from_millis(1);
                self.agenda.at(job, now + wait);
            }
            Ok(Outcome::Gone) => drop(self.known.remove(job)),
            Ok(Outcome::Rest(_)) => {}
            Err(Failed::Nats(error @ air_nats::Error::Newer { .. })) => {
                tracing::error!(%job, %error, "the job is left to managers of a newer version");
            }
            Err(error) => {
                tracing::warn!(%job, %error, "could not look at the job; trying again");
                self.agenda.at(job, now + AGAIN_AFTER);
            }
        }
        if keep {
            self.backlogs.insert(job.clone(), backlog);
        }
        self.woken.remove(job);
        self.agenda.done(job);
    }

    /// Another manager may have the backend: the wake-up that came here is passed on to all, once.
    fn pass_on(&mut self, job: &JobName) {
        let (shared, job) = (self.shared.clone(), job.clone());
        self.tasks.spawn(async move {
            shared.nats.signal(&job).await;
            Done::Nothing
        });
    }

    /// Starts as many looks as there is room for.
    fn start_looks(&mut self) {
        loop {
            let places = self.shared.places.available_permits();
            let room = places > self.looks;
            if self.looks >= LOOKS_MAX.max(self.options.runners_max) {
                break;
            }
            let Some(job) = self.agenda.pop(room) else {
                break;
            };
            let key = self.known.get(&job).map(|known| known.key.clone());
            let waits = |key: &Key| {
                key.state()
                    .is_some_and(|state| state.status == JobStatus::Waiting)
            };
            let key = key.filter(waits);
            let mut backlog = self
                .backlogs
                .remove(&job)
                .unwrap_or_else(|| Box::new(Backlog::new(job.clone())));
            let shared = self.shared.clone();
            self.looks += 1;
            self.tasks.spawn(async move {
                let outcome = advance(&shared, &job, key, &mut backlog).await;
                Done::Look(job, backlog, outcome)
            });
        }
        let free = self
            .shared
            .places
            .available_permits()
            .saturating_sub(self.looks + self.agenda.len());
        self.room
            .send_if_modified(|room| std::mem::replace(room, free) != free);
        let runners = self.shared.backend.running();
        self.beat
            .send_if_modified(|beat| std::mem::replace(&mut beat.runners, runners) != runners);
    }
}
