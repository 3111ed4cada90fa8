//! Feeds: what tells a manager of changes, each remade with back-off when it breaks.
//!
//! All of them are for speed. What they miss, the poll finds.

use std::time::Duration;

use air_nats::managers::{Heartbeat, heartbeat_of};
use air_nats::{Entry, Error, Nats};
use air_protocol::limits::HEARTBEAT_TTL;
use air_protocol::names::JobName;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

/// Something that a manager is told.
#[derive(Debug)]
pub(crate) enum News {
    /// A job's key.
    Job(Entry),
    /// A job's spec.
    Spec(Entry),
    /// All specs that there were were told.
    SpecsAreCurrent,
    /// A manager lives.
    Manager(Heartbeat),
    /// A new task of a job; the text need not be a name.
    Wakeup(String),
    /// Somebody wants the job looked at.
    Signal(JobName),
}

/// A feed ended because nobody listens any more.
struct Unheard;

/// Why a feed stopped.
enum Stop {
    Broken(Error),
    Unheard,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

impl From<Unheard> for Stop {
    fn from(_: Unheard) -> Self {
        Self::Unheard
    }
}

/// Where a feed tells its news.
#[derive(Debug, Clone)]
pub(crate) struct Ear(pub(crate) mpsc::Sender<News>);

impl Ear {
    async fn tell(&self, news: News) -> Result<(), Unheard> {
        self.0.send(news).await.map_err(|_| Unheard)
    }
}

/// First wait before a broken feed is remade; doubled up to [`REMAKE_MAX`].
const REMAKE_FIRST: Duration = Duration::from_millis(50);
const REMAKE_MAX: Duration = Duration::from_secs(2);

/// Time between two heartbeats, and without any after which the watch of them is remade.
const BEAT_EVERY: Duration = Duration::from_secs(HEARTBEAT_TTL.as_secs() / 3);
const SILENT_MAX: Duration = Duration::from_secs(HEARTBEAT_TTL.as_secs() / 3 * 2);

/// Tries after which the consumer of wake-ups is made anew, and the life of a pull after which it is well.
const BROKEN_MAX: u32 = 6;
const HEALTHY: Duration = Duration::from_secs(10);

/// Waits between the lives of a feed.
struct Remake {
    what: &'static str,
    wait: Duration,
    born: Instant,
}

impl Remake {
    fn new(what: &'static str) -> Self {
        Self {
            what,
            wait: REMAKE_FIRST,
            born: Instant::now(),
        }
    }

    /// Waits, unless nobody listens any more.
    async fn after(&mut self, stop: Stop) -> Result<(), Unheard> {
        let Stop::Broken(error) = stop else {
            return Err(Unheard);
        };
        tracing::debug!(feed = self.what, %error, "remaking a feed");
        if self.born.elapsed() > REMAKE_MAX {
            self.wait = REMAKE_FIRST;
        }
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(REMAKE_MAX);
        self.born = Instant::now();
        Ok(())
    }
}

/// The keys of jobs. `remake` changes when the watch is found to hang.
pub(crate) async fn jobs(nats: Nats, ear: Ear, remake: watch::Receiver<u64>) {
    let mut again = Remake::new("jobs");
    while again
        .after(follow(&nats, &ear, remake.clone(), true).await)
        .await
        .is_ok()
    {}
}

/// The specs of jobs.
pub(crate) async fn specs(nats: Nats, ear: Ear, remake: watch::Receiver<u64>) {
    let mut again = Remake::new("specs");
    while again
        .after(follow(&nats, &ear, remake.clone(), false).await)
        .await
        .is_ok()
    {}
}

async fn follow(nats: &Nats, ear: &Ear, mut remake: watch::Receiver<u64>, jobs: bool) -> Stop {
    let watch = if jobs {
        nats.watch_jobs().await
    } else {
        nats.watch_specs().await
    };
    let mut watch = match watch {
        Ok(watch) => watch,
        Err(error) => return error.into(),
    };
    remake.mark_unchanged();
    let mut is_current = jobs;
    loop {
        if !is_current && watch.is_current() {
            is_current = true;
            if let Err(unheard) = ear.tell(News::SpecsAreCurrent).await {
                return unheard.into();
            }
        }
        let entry = tokio::select! {
            entry = watch.next() => entry,
            changed = remake.changed() => match changed {
                Ok(()) => Err(Error::Timeout),
                Err(_) => return Stop::Unheard,
            },
        };
        let told = match entry {
            Ok(entry) if jobs => ear.tell(News::Job(entry)).await,
            Ok(entry) => ear.tell(News::Spec(entry)).await,
            Err(error) => return error.into(),
        };
        if let Err(unheard) = told {
            return unheard.into();
        }
    }
}

/// Heartbeats of managers.
pub(crate) async fn managers(nats: Nats, ear: Ear) {
    let mut again = Remake::new("managers");
    while again
        .after(follow_managers(&nats, &ear).await)
        .await
        .is_ok()
    {}
}

async fn follow_managers(nats: &Nats, ear: &Ear) -> Stop {
    let mut watch = match nats.watch_managers().await {
        Ok(watch) => watch,
        Err(error) => return error.into(),
    };
    loop {
        // A manager hears itself: silence means that the watch hangs, as after the loss of the bucket.
        let entry = match timeout(SILENT_MAX, watch.next()).await {
            Ok(Ok(entry)) => entry,
            Ok(Err(error)) => return error.into(),
            Err(_) => return Error::Timeout.into(),
        };
        if let Some(heartbeat) = heartbeat_of(&entry)
            && let Err(unheard) = ear.tell(News::Manager(heartbeat)).await
        {
            return unheard.into();
        }
    }
}

/// New tasks, as many as there is `room` for.
pub(crate) async fn wakeups(nats: Nats, ear: Ear, mut room: watch::Receiver<usize>) {
    let mut again = Remake::new("wake-ups");
    let mut broken = 0;
    loop {
        let born = Instant::now();
        let stop = pull(&nats, &ear, &mut room).await;
        broken = if born.elapsed() > HEALTHY {
            0
        } else {
            broken + 1
        };
        if broken == BROKEN_MAX {
            // Its only copy was on a server that is gone. It holds nothing that the poll does not find.
            broken = 0;
            if let Err(error) = nats.drop_wakeups().await {
                tracing::debug!(%error, "could not drop the consumer of wake-ups");
            }
        }
        if again.after(stop).await.is_err() {
            return;
        }
    }
}

async fn pull(nats: &Nats, ear: &Ear, room: &mut watch::Receiver<usize>) -> Stop {
    let wakeups = match nats.wakeups().await {
        Ok(wakeups) => wakeups,
        Err(error) => return error.into(),
    };
    loop {
        let free = match room.wait_for(|free| *free > 0).await {
            Ok(free) => *free,
            Err(_) => return Stop::Unheard,
        };
        let mut pull = match wakeups.pull(free).await {
            Ok(pull) => pull,
            Err(error) => return error.into(),
        };
        loop {
            match pull.next().await {
                Ok(Some(job)) => {
                    if let Err(unheard) = ear.tell(News::Wakeup(job)).await {
                        return unheard.into();
                    }
                }
                Ok(None) => break,
                Err(error) => return error.into(),
            }
        }
    }
}

/// Signals to jobs.
pub(crate) async fn signals(nats: Nats, ear: Ear) {
    let mut again = Remake::new("signals");
    while again.after(listen(&nats, &ear).await).await.is_ok() {}
}

async fn listen(nats: &Nats, ear: &Ear) -> Stop {
    let mut signals = match nats.signals(None).await {
        Ok(signals) => signals,
        Err(error) => return error.into(),
    };
    while let Some(job) = signals.next().await {
        if let Err(unheard) = ear.tell(News::Signal(job)).await {
            return unheard.into();
        }
    }
    Stop::Broken(Error::Timeout)
}

/// Says every second that this manager lives.
pub(crate) async fn heartbeats(nats: Nats, beats: watch::Receiver<Heartbeat>) {
    let mut every = tokio::time::interval(BEAT_EVERY);
    let mut told = false;
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while beats.has_changed().is_ok() {
        every.tick().await;
        let heartbeat = beats.borrow().clone();
        match nats.beat(&heartbeat).await {
            Ok(_) => told = false,
            Err(error) if told => tracing::debug!(%error, "no heartbeat"),
            Err(error) => {
                tracing::warn!(%error, "no heartbeat; others may take this manager for gone");
                told = true;
            }
        }
    }
}
