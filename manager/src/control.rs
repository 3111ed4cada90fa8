//! The loop of a manager: hears news, keeps the agenda, and looks at jobs side by side.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use air_nats::jobs::Key;
use air_nats::managers::Heartbeat;
use air_nats::specs::spec_of;
use air_nats::{Entry, Nats};
use air_protocol::VERSION;
use air_protocol::event::{Data, Kind};
use air_protocol::job::JobStatus;
use air_protocol::limits::START_WITHIN_PROCESS;
use air_protocol::names::JobName;
use air_protocol::time::Span;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::advance::{Failed, Outcome, advance};
use crate::agenda::Agenda;
use crate::backend::process::{self, Exit, Process};
use crate::backlog::Backlog;
use crate::decide::{Me, Rest};
use crate::feeds::{self, Ear, News};
use crate::leases::{Leases, Suspect, Why};
use crate::recover::recover;
use crate::shared::{Shared, now};
use crate::{Error, Options};

mod poll;

/// News that may wait to be heard.
const NEWS_MAX: usize = 4096;
/// Looks that need no place for a runner and may happen at once.
const LOOKS_MAX: usize = 32;
/// Time between two looks at leases and due jobs.
const TICK: Duration = Duration::from_millis(250);
/// Time that the manager whose runner gave a job back has before others look at it.
const OTHERS_AFTER: Duration = Duration::from_millis(100);
/// Time after which a failed look is repeated.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What a task of the loop brings back.
enum Done {
    Look(JobName, Box<Backlog>, Result<Outcome, Failed>),
    Recovery(JobName),
    Poll(Result<poll::Sight, air_nats::Error>),
    Live(HashSet<Uuid>),
}

/// What the watch says of a job that somebody works on, or may.
struct Known {
    key: Key,
}

struct Control {
    shared: Arc<Shared>,
    options: Options,
    agenda: Agenda,
    leases: Leases,
    /// Jobs whose key is not final, by what the watch says.
    known: HashMap<JobName, Known>,
    /// Jobs whose key is final, with the sequence of the last record folded in.
    quiet: HashMap<JobName, u64>,
    backlogs: HashMap<JobName, Box<Backlog>>,
    recovering: HashSet<JobName>,
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

/// Runs a manager until `shutdown` is ready.
pub(crate) async fn run(
    nats: Nats,
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let host = host();
    let id = options.id.clone().unwrap_or_else(|| fresh_id(&host));
    let env = options
        .nats
        .to_env()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let backend = Process::new(options.runner.clone(), env);
    let me = Me {
        id: id.clone(),
        backend: process::NAME.to_owned(),
        start_within: Span(START_WITHIN_PROCESS),
        realm: Process::realm(),
    };
    let heartbeat = Heartbeat {
        v: VERSION,
        manager: id,
        host,
        backends: vec![process::NAME.to_owned()],
        runners: 0,
        runners_max: options.runners_max,
        since: now(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let shared = Arc::new(Shared::new(
        nats.clone(),
        me,
        backend.clone(),
        options.runners_max,
        options.sync_interval,
    ));
    let (ear, news) = mpsc::channel(NEWS_MAX);
    let ear = Ear(ear);
    let (exits_in, exits) = mpsc::unbounded_channel();
    let (remake, remade) = watch::channel(0);
    let (room, free) = watch::channel(options.runners_max);
    let (beat, beats) = watch::channel(heartbeat);
    let _ = nix::sys::prctl::set_child_subreaper(true);
    let mut helpers = JoinSet::new();
    helpers.spawn(async move {
        if let Err(error) = backend.reap(exits_in).await {
            tracing::error!(%error, "cannot wait for runners");
        }
    });
    helpers.spawn(feeds::jobs(nats.clone(), ear.clone(), remade.clone()));
    helpers.spawn(feeds::specs(nats.clone(), ear.clone(), remade));
    helpers.spawn(feeds::managers(nats.clone(), ear.clone()));
    helpers.spawn(feeds::wakeups(nats.clone(), ear.clone(), free));
    helpers.spawn(feeds::signals(nats.clone(), ear));
    helpers.spawn(feeds::heartbeats(nats.clone(), beats));
    helpers.spawn(process::sweep_orphans());
    let control = Control {
        shared,
        options,
        agenda: Agenda::default(),
        leases: Leases::new(Instant::now()),
        known: HashMap::new(),
        quiet: HashMap::new(),
        backlogs: HashMap::new(),
        recovering: HashSet::new(),
        tasks: JoinSet::new(),
        looks: 0,
        revision: 0,
        polled: 0,
        walk: 0,
        remake,
        room,
        beat,
    };
    control.run(news, exits, shutdown).await;
    helpers.shutdown().await;
    Ok(())
}

fn host() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "unknown".into())
}

/// An id that nobody else has, and that people recognise: host, process, and a few random letters.
fn fresh_id(host: &str) -> String {
    let host: String = host
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(40)
        .collect();
    let random = Uuid::new_v4().simple().to_string();
    format!("{host}-{}-{}", std::process::id(), &random[..4])
}

/// Tasks under a name that no job can have are told of, and deleted.
async fn reject(shared: &Shared, job: &str) {
    let reason = format!("`{job}` is no job name; use 1 to 64 of the characters A-Z a-z 0-9 _ -");
    tracing::warn!(reason, "deleting tasks");
    let nats = &shared.nats;
    nats.emit(
        Kind::Rejected,
        Data {
            reason: Some(reason),
            ..Data::default()
        },
    )
    .await;
    let subject = format!("{}.tasks.{job}", nats.names().prefix());
    if let Err(error) = nats.purge(&nats.names().stream(), &subject, None).await {
        tracing::debug!(%error, "could not delete them");
    }
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

    /// Claims nothing more; lets what is under way end; with `drain` waits for the runners.
    async fn stop(&mut self, exits: &mut mpsc::UnboundedReceiver<Exit>) {
        self.room.send_replace(0);
        while self.tasks.join_next().await.is_some() {}
        while self.options.drain && self.shared.backend.running() > 0 {
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

    async fn hear(&mut self, news: News) {
        match news {
            News::Job(entry) => self.on_job(&entry),
            News::Spec(entry) => {
                let Ok(job) = entry.key.parse::<JobName>() else {
                    return;
                };
                let spec = entry.value.is_some().then(|| spec_of(Some(&entry)));
                if let Some(Err(error)) = &spec {
                    tracing::warn!(%job, error, "the spec cannot be read; the job is not claimed");
                }
                self.shared.set_spec(&job, spec);
                if self.known.contains_key(&job) {
                    self.agenda.now(&job);
                }
            }
            News::Manager(heartbeat) => self.leases.heard(&heartbeat.manager, Instant::now()),
            News::Wakeup(job) => match job.parse::<JobName>() {
                Ok(job) => self.look_for_tasks(&job),
                Err(_) => reject(&self.shared, &job).await,
            },
            News::Signal(job) => {
                self.expect_more(&job);
                self.agenda.urgently(&job);
            }
        }
    }

    fn expect_more(&mut self, job: &JobName) {
        if let Some(backlog) = self.backlogs.get_mut(job) {
            backlog.expect_more();
        }
    }

    fn look_for_tasks(&mut self, job: &JobName) {
        self.expect_more(job);
        let working = self
            .known
            .get(job)
            .and_then(|known| known.key.state())
            .is_some_and(|state| state.lease().is_some());
        if !working || self.agenda.has(job) {
            self.agenda.now(job);
        }
    }

    /// The watch says what a job's key holds.
    fn on_job(&mut self, entry: &Entry) {
        self.revision = self.revision.max(entry.revision);
        let Ok(job) = entry.key.parse::<JobName>() else {
            return;
        };
        let before = self.known.get(&job);
        if before.is_some_and(|known| known.key.revision() > entry.revision) {
            return;
        }
        let lease_before = before.and_then(|known| known.key.state()?.lease());
        let mine = lease_before.is_some_and(|lease| lease.manager == self.shared.me.id);
        let record_before = before
            .and_then(|known| known.key.state())
            .map_or(0, |state| state.last_record);
        let key = Key::of_entry(Some(entry));
        let now = Instant::now();
        self.leases.observe(&job, entry.revision, key.state(), now);
        let Some(state) = key.state() else {
            self.known.insert(job.clone(), Known { key });
            self.agenda.now(&job);
            return;
        };
        if state.last_record > record_before {
            for waiter in self.shared.waits().waiters(&job) {
                self.agenda.now(&waiter);
            }
        }
        self.quiet.remove(&job);
        match &state.status {
            JobStatus::Waiting if mine => self.agenda.now(&job),
            JobStatus::Waiting => self.agenda.at(&job, now + OTHERS_AFTER),
            JobStatus::Cancelling | JobStatus::Removing if mine => self.agenda.urgently(&job),
            JobStatus::Cancelling | JobStatus::Removing => self.agenda.at(&job, now + OTHERS_AFTER),
            JobStatus::Working { .. } => {}
            JobStatus::Completed { .. }
            | JobStatus::Failed { .. }
            | JobStatus::Cancelled { .. } => {
                self.quiet.insert(job.clone(), state.ledger.accounted);
                self.known.remove(&job);
                return;
            }
        }
        self.known.insert(job, Known { key });
    }

    fn on_exit(&mut self, exit: Exit) {
        let suspect = self.leases.of_runner(exit.runner);
        if !exit.clean || suspect.is_some() {
            tracing::debug!(runner = %exit.runner, clean = exit.clean, "a runner ended");
        }
        if !exit.clean {
            self.tasks.spawn(async move {
                process::kill(exit.runner).await;
                Done::Live(HashSet::new())
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
            let live = process::live_runners().await.unwrap_or_default();
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
            Ok(Outcome::Started | Outcome::Full) => keep = true,
            Ok(Outcome::Rest(Rest::Held(until))) => {
                let wait = until.since(crate::shared::now()) + Duration::from_millis(1);
                self.agenda.at(job, now + wait);
            }
            Ok(Outcome::Gone) => drop(self.known.remove(job)),
            Ok(Outcome::Rest(_)) => {}
            Err(error) => {
                tracing::warn!(%job, %error, "could not look at the job; trying again");
                self.agenda.at(job, now + AGAIN_AFTER);
            }
        }
        if keep {
            self.backlogs.insert(job.clone(), backlog);
        }
        self.agenda.done(job);
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
