//! The loop of a manager: hears news, keeps the agenda, and looks at jobs side by side.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use air_nats::jobs::Key;
use air_nats::managers::Heartbeat;
use air_protocol::event::{Data, Kind};
use air_protocol::job::JobStatus;
use air_protocol::names::JobName;
use air_protocol::time::Time;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use uuid::Uuid;

use crate::advance::{Failed, Outcome, advance};
use crate::agenda::Agenda;
use crate::backend::End;
use crate::backlog::Backlog;
use crate::decide::Rest;
use crate::feeds::News;
use crate::leases::{Leases, Suspect, Why};
use crate::recover::{self, recover};
use crate::shared::Shared;
use crate::{OnStop, Options};

mod hear;
mod parked;
mod places;
mod poll;
mod remembered;
mod start;

use parked::Parked;
use places::next_limits;
use poll::Told;
use remembered::Remembered;
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
    Look(Box<Backlog>, Result<Outcome, Failed>),
    Recovery(Option<Key>),
    Poll(Result<poll::Sight, air_nats::Error>),
    /// Runners that live no longer.
    Gone(HashSet<Uuid>),
    Nothing,
}

/// What a task of the loop is about: known also when it breaks.
enum UnderWay {
    Look {
        job: JobName,
        /// Whether it may take a place for a runner.
        claims: bool,
        era: u64,
    },
    Recovery(JobName),
    Other,
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
    /// Whether its records have a time to live: those of a failed job are kept until somebody mends it.
    expires: bool,
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
    backlogs: Remembered,
    parked: Parked,
    recovering: HashSet<JobName>,
    /// Jobs whose next task waits for an account, by the account.
    over_budget: HashMap<JobName, BTreeSet<JobName>>,
    /// Jobs that a wake-up named and that were not looked at since.
    woken: HashSet<JobName>,
    tasks: JoinSet<Done>,
    under_way: HashMap<Id, UnderWay>,
    /// Looks under way, and those of them that may take a place for a runner.
    looks: usize,
    claiming: usize,
    /// The era of all that is remembered here.
    era: u64,
    jobs_told: Told,
    specs_told: Told,
    /// The last sequence of the stream of tasks, as far as polls have seen.
    stream_seen: u64,
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
        mut ends: mpsc::UnboundedReceiver<End>,
        shutdown: impl Future<Output = ()>,
    ) {
        tokio::pin!(shutdown);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut poll = tokio::time::interval(self.options.poll);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut link = self.shared.nats.link();
        let mut freed = self.shared.fleet.freed();
        let mut limits = self.options.new_limits.clone();
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
                Some(end) = ends.recv() => self.on_end(end),
                Some(done) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => match done {
                    Ok((id, done)) => self.on_done(id, done),
                    Err(error) => self.on_broken(&error),
                },
                _ = tick.tick() => self.on_tick(),
                _ = poll.tick() => self.start_poll(),
                Ok(()) = freed.changed() => self.wake_parked(),
                Some(limits) = next_limits(&mut limits) => self.set_limits(limits),
                Ok(()) = link.changed() => {
                    let up = link.borrow_and_update().up;
                    if self.era != self.shared.era() {
                        self.begin_anew();
                    }
                    self.leases.link(up, Instant::now());
                }
            }
            self.start_looks();
        }
        self.stop(&mut ends).await;
    }

    /// Claims nothing more; lets what is under way end; waits for the runners if that is wanted.
    async fn stop(&mut self, ends: &mut mpsc::UnboundedReceiver<End>) {
        self.room.send_replace(0);
        let shared = self.shared.clone();
        let ended = async {
            while self.tasks.join_next().await.is_some() {}
            shared.launched().await;
        };
        if tokio::time::timeout(STOP_WITHIN, ended).await.is_err() {
            tracing::warn!("NATS does not answer; what was under way is left to other managers");
            self.tasks.abort_all();
            return;
        }
        if self.options.on_stop == OnStop::HandBack {
            self.shared.fleet.stop().await;
        }
        while self.options.on_stop != OnStop::Leave && self.shared.fleet.awaited() > 0 {
            match ends.recv().await {
                Some(end) => drop(self.shared.fleet.ended(end.runner)),
                None => break,
            }
        }
        self.tell(Kind::ManagerDown).await;
        let _ = self.shared.nats.forget_manager(&self.shared.me.id).await;
        self.shared.nats.flush().await;
        tracing::info!(manager = %self.shared.me.id, runners = self.shared.fleet.running(), "manager stopped");
    }

    async fn tell(&self, kind: Kind) {
        let data = Data {
            manager: Some(self.shared.me.id.clone()),
            ..Data::default()
        };
        self.shared.nats.emit(kind, data).await;
    }

    fn on_end(&mut self, End { runner, exit }: End) {
        let backend = self.shared.fleet.ended(runner).unwrap_or_default();
        let why = recover::why(exit);
        // One that ended well has released its lease: there is nothing to remember.
        let suspect = if exit.is_clean() {
            self.leases.of_runner(runner)
        } else {
            self.leases.ended(runner, why, Instant::now())
        };
        if !exit.is_clean() || suspect.is_some() {
            tracing::debug!(%runner, ?exit, "a runner ended");
        }
        if !exit.is_clean() {
            let shared = self.shared.clone();
            self.spawn(UnderWay::Other, async move {
                shared.fleet.kill(&backend, runner).await;
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
        let what = UnderWay::Recovery(suspect.job.clone());
        self.spawn(what, async move {
            let recovered = async {
                shared.learn_spec(&suspect.job, false).await?;
                recover(&shared, &suspect).await
            };
            let other = recovered.await.unwrap_or_else(|error| {
                tracing::warn!(job = %suspect.job, %error, "could not recover; trying again");
                None
            });
            Done::Recovery(other)
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

    /// Looks for runners that the backends can see, that live no longer, and that this manager did not start.
    fn look_for_runners(&mut self) {
        let (leases, now) = (&self.leases, Instant::now());
        let in_realm = |realm: &str, within| leases.runners_in(realm, within, now);
        if let Some(look) = self.shared.fleet.look_for(in_realm) {
            self.spawn(UnderWay::Other, async { Done::Gone(look.await) });
        }
    }

    fn spawn(&mut self, what: UnderWay, task: impl Future<Output = Done> + Send + 'static) {
        let id = self.tasks.spawn(task).id();
        self.under_way.insert(id, what);
    }

    fn on_done(&mut self, id: Id, done: Done) {
        let what = self.under_way.remove(&id).unwrap_or(UnderWay::Other);
        match (done, what) {
            (Done::Look(backlog, outcome), UnderWay::Look { job, claims, era }) => {
                self.ended(claims);
                let backlog = (era == self.era).then_some(backlog);
                self.on_looked(&job, backlog, outcome);
                self.agenda.done(&job);
            }
            (Done::Recovery(other), UnderWay::Recovery(job)) => {
                self.recovering.remove(&job);
                // The watch has not told this yet: it may hang, or the key was erased without a marker.
                if let Some(key) = other {
                    let now = Instant::now();
                    self.leases.observe(&job, key.revision(), key.state(), now);
                }
            }
            (Done::Gone(gone), _) => {
                for runner in gone {
                    if let Some(suspect) = self.leases.of_runner(runner) {
                        self.start_recovery(Suspect {
                            why: Why::ProcessGone,
                            ..suspect
                        });
                    }
                }
            }
            (Done::Poll(Ok(sight)), _) => self.on_poll(sight),
            (Done::Poll(Err(error)), _) => tracing::warn!(%error, "could not poll"),
            (Done::Look(..) | Done::Recovery(_) | Done::Nothing, _) => {}
        }
    }

    /// A task of the loop panicked: what it was about is tried again.
    fn on_broken(&mut self, error: &JoinError) {
        tracing::error!(%error, "a task of the manager broke: a bug");
        match self.under_way.remove(&error.id()) {
            Some(UnderWay::Look { job, claims, .. }) => {
                self.ended(claims);
                self.agenda.done(&job);
                self.agenda.at(&job, Instant::now() + AGAIN_AFTER);
            }
            Some(UnderWay::Recovery(job)) => drop(self.recovering.remove(&job)),
            Some(UnderWay::Other) | None => {}
        }
    }

    fn ended(&mut self, claims: bool) {
        self.looks -= 1;
        self.claiming -= usize::from(claims);
    }

    fn on_looked(
        &mut self,
        job: &JobName,
        backlog: Option<Box<Backlog>>,
        outcome: Result<Outcome, Failed>,
    ) {
        let now = Instant::now();
        let mut keep = backlog.as_ref().is_some_and(|backlog| !backlog.is_empty());
        match outcome {
            Ok(Outcome::Started) => keep = true,
            Ok(Outcome::More) => {
                keep = true;
                self.agenda.again(job);
            }
            Ok(Outcome::Rest(Rest::OtherBackend)) => self.pass_on(job),
            Ok(Outcome::Rest(Rest::Full(backends))) => {
                keep = true;
                self.on_full(job, backends);
            }
            Ok(Outcome::Rest(Rest::Away(until))) => {
                let wait = until.since(crate::shared::now()) + Duration::from_millis(1);
                self.agenda.at(job, now + wait);
                self.pass_on(job);
            }
            Ok(Outcome::Rest(Rest::Held(until))) => {
                let wait = until.since(crate::shared::now()) + Duration::from_millis(1);
                self.agenda.at(job, now + wait);
            }
            Ok(Outcome::Rest(Rest::OverBudget(account))) => {
                let waiting = self.over_budget.entry(account).or_default();
                waiting.insert(job.clone());
            }
            Ok(Outcome::Gone) => {
                keep = false;
                self.known.remove(job);
                self.quiet.remove(job);
                self.leases.observe(job, 0, None, now);
            }
            Ok(Outcome::Rest(_)) => {}
            Err(Failed::Nats(error @ air_nats::Error::Newer { .. })) => {
                tracing::error!(%job, %error, "the job is left to managers of a newer version");
            }
            Err(error) => {
                tracing::warn!(%job, %error, "could not look at the job; trying again");
                self.agenda.at(job, now + AGAIN_AFTER);
            }
        }
        self.woken.remove(job);
        if let Some(mut backlog) = backlog.filter(|_| keep) {
            if self.agenda.wants_again(job) {
                // What was told during the look came when the backlog was out of reach.
                backlog.expect_more();
            }
            self.backlogs.put(job, backlog);
        }
    }

    /// Another manager may have the backend: a wake-up that came here is passed on to all, once.
    fn pass_on(&mut self, job: &JobName) {
        if !self.woken.contains(job) {
            return;
        }
        let (shared, job) = (self.shared.clone(), job.clone());
        self.spawn(UnderWay::Other, async move {
            shared.nats.signal(&job).await;
            Done::Nothing
        });
    }

    /// Starts as many looks as there is room for.
    fn start_looks(&mut self) {
        loop {
            let room = self.shared.fleet.free() > self.claiming;
            if self.looks >= LOOKS_MAX.max(self.options.runners_max) {
                break;
            }
            let Some(job) = self.agenda.pop(room) else {
                break;
            };
            self.start_look(job, room);
        }
        let free = self.shared.fleet.free();
        let free = free.saturating_sub(self.claiming + self.agenda.len());
        self.room
            .send_if_modified(|room| std::mem::replace(room, free) != free);
        let (runners, backends) = (self.shared.fleet.running(), self.shared.fleet.names());
        self.beat.send_if_modified(|beat| {
            let fewer = std::mem::replace(&mut beat.runners, runners) != runners;
            let others = beat.backends != backends;
            beat.backends = backends;
            fewer || others
        });
    }

    fn start_look(&mut self, job: JobName, room: bool) {
        let key = self.known.get(&job).map(|known| known.key.clone());
        let status = key.as_ref().and_then(Key::state).map(|state| &state.status);
        // Emptying and removing a job takes long, and no place for a runner.
        let empties = matches!(status, Some(JobStatus::Cancelling | JobStatus::Removing));
        let claims = room && !empties;
        let waits = matches!(status, Some(JobStatus::Waiting));
        let key = key.filter(|_| waits);
        let mut backlog = self.backlogs.take(&job);
        self.looks += 1;
        self.claiming += usize::from(claims);
        let (shared, era) = (self.shared.clone(), self.era);
        let what = UnderWay::Look {
            job: job.clone(),
            claims,
            era,
        };
        self.spawn(what, async move {
            let outcome = advance(&shared, era, &job, key, &mut backlog).await;
            Done::Look(backlog, outcome)
        });
    }
}
