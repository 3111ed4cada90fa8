//! Leases as a manager watches them: which holders must be dead.
//!
//! Pure. A lease is suspected when its key's revision has not changed for its TTL, as watched on
//! this manager's own monotonic clock over a connection that was up all the time. No clocks are
//! compared. A suspicion only chooses what to try: the take-over is a compare-and-swap at the
//! revision that was judged.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use air_protocol::job::JobState;
use air_protocol::lease::Phase;
use air_protocol::limits::HEARTBEAT_TTL;
use air_protocol::names::JobName;
use uuid::Uuid;

/// Time for which the end of a runner is remembered whose lease was not heard of.
const ENDED_KEPT: Duration = Duration::from_secs(60);

/// Why a holder must be dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It did not renew its lease.
    Silent,
    /// It did not start in time.
    NotStarted,
    /// Its manager is gone, and it had not started.
    ManagerGone,
    /// Its process is gone.
    ProcessGone,
    /// Its process has ended, and said that it could not reach NATS.
    Unavailable,
    /// It and its task had more memory than they may have.
    OutOfMemory,
    /// The infrastructure took its place away.
    Evicted,
    /// The machine that it ran on is gone, or does not answer.
    NodeLost,
}

impl Why {
    /// The reason in a few words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "its lease was not renewed",
            Self::NotStarted => "it did not start in time",
            Self::ManagerGone => "its manager is gone",
            Self::ProcessGone => "its process is gone",
            Self::Unavailable => "it could not reach NATS",
            Self::OutOfMemory => {
                "it ran out of memory (OOMKilled); give the task more `resources.memory`"
            }
            Self::Evicted => "it was evicted",
            Self::NodeLost => "its node was lost",
        }
    }

    /// Whether it counts as a failed start when it comes before the start: not where it says nothing of the task.
    pub fn counts(self) -> bool {
        match self {
            Self::Silent | Self::NotStarted | Self::ProcessGone | Self::OutOfMemory => true,
            Self::ManagerGone | Self::Unavailable | Self::Evicted | Self::NodeLost => false,
        }
    }
}

/// A lease that is to be taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// The job.
    pub job: JobName,
    /// The revision that was judged.
    pub revision: u64,
    /// Why.
    pub why: Why,
}

#[derive(Debug)]
struct Watched {
    revision: u64,
    runner: Uuid,
    manager: String,
    realm: Option<String>,
    /// Still waiting for its runner to start.
    starting: bool,
    /// A runner holds it. A manager that settles or recovers has no process by the name of the lease:
    /// that of a dead runner is missing for as long as its lease is recovered.
    by_runner: bool,
    /// What its manager heard of the end of its process.
    ended: Option<Why>,
    within: Duration,
    since: Instant,
}

/// The leases that are held, and the managers that were heard of.
#[derive(Debug)]
pub struct Leases {
    held: HashMap<JobName, Watched>,
    heard: HashMap<String, Instant>,
    /// Runners that ended before their lease was heard of, or after it was settled: which, and when.
    ended: HashMap<Uuid, (Why, Instant)>,
    up_since: Instant,
    up: bool,
}

impl Leases {
    /// Nothing is held, and the connection is up.
    pub fn new(now: Instant) -> Self {
        Self {
            held: HashMap::new(),
            heard: HashMap::new(),
            ended: HashMap::new(),
            up_since: now,
            up: true,
        }
    }

    /// The key of a job is at this revision, with this state.
    pub fn observe(
        &mut self,
        job: &JobName,
        revision: u64,
        state: Option<&JobState>,
        now: Instant,
    ) {
        let Some(lease) = state.and_then(JobState::lease) else {
            self.held.remove(job);
            return;
        };
        let starting = matches!(lease.phase, Phase::Starting { .. });
        let within = if starting {
            lease.start_within.0
        } else {
            lease.ttl.0
        };
        let by_runner = has_runner(&lease.phase);
        let ended = match self.held.get(job) {
            Some(before) if before.runner == lease.runner => before.ended,
            _ => self.ended.remove(&lease.runner).map(|(why, _)| why),
        };
        let watched = Watched {
            revision,
            runner: lease.runner,
            manager: lease.manager.clone(),
            realm: lease.realm.clone(),
            starting,
            by_runner,
            ended: ended.filter(|_| by_runner),
            within,
            since: now,
        };
        match self.held.get(job) {
            Some(before) if before.revision >= revision => {}
            _ => drop(self.held.insert(job.clone(), watched)),
        }
    }

    /// A manager was heard of.
    pub fn heard(&mut self, manager: &str, now: Instant) {
        self.heard.insert(manager.to_owned(), now);
    }

    /// The connection went down, or came up: every watch starts anew.
    pub fn link(&mut self, up: bool, now: Instant) {
        self.up = up;
        self.up_since = now;
        for watched in self.held.values_mut() {
            watched.since = now;
        }
    }

    /// Runners of the leases in `realm` that are there, or should be: `spawn_within` after their claim.
    pub fn runners_in(&self, realm: &str, spawn_within: Duration, now: Instant) -> HashSet<Uuid> {
        let here = self.held.values().filter(|watched| {
            let spawned = !watched.starting || now.duration_since(watched.since) >= spawn_within;
            watched.realm.as_deref() == Some(realm) && watched.by_runner && spawned
        });
        here.map(|watched| watched.runner).collect()
    }

    /// The process of a runner has ended: the lease that it still holds. It stays suspected until it is
    /// taken over, since NATS may be away now; one that is heard of later is suspected then.
    pub fn ended(&mut self, runner: Uuid, why: Why, now: Instant) -> Option<Suspect> {
        let mut held = self.held.values_mut();
        match held.find(|watched| watched.runner == runner) {
            Some(watched) if watched.by_runner => watched.ended = Some(why),
            Some(_) => {}
            None => {
                (self.ended).retain(|_, (_, at)| now.duration_since(*at) < ENDED_KEPT);
                self.ended.insert(runner, (why, now));
            }
        }
        let suspect = self.of_runner(runner)?;
        Some(Suspect { why, ..suspect })
    }

    /// The lease of a runner whose process is gone.
    pub fn of_runner(&self, runner: Uuid) -> Option<Suspect> {
        let (job, watched) = self
            .held
            .iter()
            .find(|(_, watched)| watched.runner == runner && watched.by_runner)?;
        Some(Suspect {
            job: job.clone(),
            revision: watched.revision,
            why: Why::ProcessGone,
        })
    }

    /// The leases whose holders must be dead.
    pub fn suspects(&self, now: Instant) -> Vec<Suspect> {
        if !self.up {
            return Vec::new();
        }
        let mut suspects = Vec::new();
        for (job, watched) in &self.held {
            let age = now.duration_since(watched.since);
            let why = if let Some(why) = watched.ended {
                why
            } else if age >= watched.within && watched.starting {
                Why::NotStarted
            } else if age >= watched.within {
                Why::Silent
            } else if watched.starting && self.is_gone(watched, now) {
                Why::ManagerGone
            } else {
                continue;
            };
            suspects.push(Suspect {
                job: job.clone(),
                revision: watched.revision,
                why,
            });
        }
        suspects
    }

    /// Nothing was heard of the manager since the claim, for as long as a heartbeat lives. Who hears nobody,
    /// not even itself, knows nothing of others: the bucket of heartbeats may be lost.
    fn is_gone(&self, watched: &Watched, now: Instant) -> bool {
        let lives = |heard: &Instant| now.duration_since(*heard) < HEARTBEAT_TTL;
        if !self.heard.values().any(lives) {
            return false;
        }
        let heard = self.heard.get(&watched.manager).copied();
        let last = heard
            .unwrap_or(self.up_since)
            .max(self.up_since)
            .max(watched.since);
        now.duration_since(last) >= HEARTBEAT_TTL
    }

    /// Whether any lease is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

fn has_runner(phase: &Phase) -> bool {
    match phase {
        Phase::Starting { .. } | Phase::Running(_) | Phase::Stopping { .. } => true,
        Phase::Settling { .. } | Phase::Recovering { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use air_protocol::job::{Change, Event};
    use air_protocol::lease::{Ending, Lease, Target};
    use air_protocol::time::{Span, Time};

    use super::*;

    const TTL: Duration = Duration::from_secs(30);
    const START: Duration = Duration::from_secs(10);
    const SPAWN_WITHIN: Duration = Duration::from_secs(1);

    fn job() -> JobName {
        "j".parse().unwrap()
    }

    fn apply(state: &JobState, event: &Event) -> JobState {
        match state.apply(event, Time::default()).unwrap() {
            Change::To(next) => *next,
            Change::NoOp => state.clone(),
        }
    }

    fn starting() -> JobState {
        let target = Target {
            task: "t".parse().unwrap(),
            seq: 1,
            attempt: 1,
            expected: 0,
        };
        let lease = Lease {
            runner: Uuid::nil(),
            manager: "m".into(),
            backend: "process".into(),
            realm: Some("here".into()),
            budget: None,
            claimed: Time::default(),
            renewed: Time::default(),
            ttl: Span(TTL),
            start_within: Span(START),
            phase: Phase::Starting { target },
        };
        apply(&JobState::new(Time::default()), &Event::Claim(lease))
    }

    fn running() -> JobState {
        apply(
            &starting(),
            &Event::Start {
                runner: Uuid::nil(),
                fence: 1,
                host: "h".into(),
            },
        )
    }

    #[test]
    fn a_silent_runner_is_suspected_after_its_ttl() {
        let start = Instant::now();
        let mut leases = Leases::new(start);
        leases.observe(&job(), 2, Some(&running()), start);
        assert!(!leases.is_empty());
        assert!(
            leases
                .suspects(start + TTL - Duration::from_millis(1))
                .is_empty()
        );
        assert_eq!(leases.suspects(start + TTL)[0].why, Why::Silent);
        leases.observe(&job(), 3, Some(&running()), start + TTL);
        assert!(leases.suspects(start + TTL).is_empty(), "it was renewed");
        leases.observe(
            &job(),
            4,
            Some(&JobState::new(Time::default())),
            start + TTL,
        );
        assert!(leases.is_empty());
    }

    #[test]
    fn an_outage_starts_every_watch_anew() {
        let start = Instant::now();
        let mut leases = Leases::new(start);
        leases.observe(&job(), 2, Some(&running()), start);
        leases.link(false, start + TTL);
        assert!(
            leases.suspects(start + 2 * TTL).is_empty(),
            "nothing is judged while the connection is down"
        );
        leases.link(true, start + 2 * TTL);
        assert!(leases.suspects(start + 2 * TTL).is_empty());
        assert_eq!(leases.suspects(start + 3 * TTL).len(), 1);
    }

    #[test]
    fn a_claim_is_suspected_with_its_manager() {
        let start = Instant::now();
        let mut leases = Leases::new(start);
        leases.observe(&job(), 2, Some(&starting()), start);
        leases.heard("m", start + HEARTBEAT_TTL);
        assert!(leases.suspects(start + HEARTBEAT_TTL).is_empty());
        let deaf = leases.suspects(start + 2 * HEARTBEAT_TTL);
        assert!(deaf.is_empty(), "nobody is heard of, not even itself");
        leases.heard("me", start + 2 * HEARTBEAT_TTL);
        assert_eq!(
            leases.suspects(start + 2 * HEARTBEAT_TTL)[0].why,
            Why::ManagerGone
        );
        leases.heard("m", start + START);
        assert_eq!(leases.suspects(start + START)[0].why, Why::NotStarted);
    }

    #[test]
    fn an_older_sight_changes_nothing() {
        let start = Instant::now();
        let mut leases = Leases::new(start);
        leases.observe(&job(), 5, Some(&running()), start);
        leases.observe(&job(), 4, Some(&starting()), start);
        assert_eq!(leases.of_runner(Uuid::nil()).unwrap().revision, 5);
    }

    #[test]
    fn the_end_of_a_runner_is_remembered_until_its_lease_is_taken_over() {
        let start = Instant::now();
        let runner = Uuid::nil();
        let mut leases = Leases::new(start);
        leases.observe(&job(), 2, Some(&starting()), start);
        let at_once = leases.ended(runner, Why::Unavailable, start).unwrap();
        assert_eq!((at_once.revision, at_once.why), (2, Why::Unavailable));
        leases.link(false, start);
        assert!(leases.suspects(start).is_empty());
        leases.link(true, start);
        assert_eq!(leases.suspects(start), [at_once]);
        // It had started, which was heard of late.
        leases.observe(&job(), 3, Some(&running()), start);
        assert_eq!(leases.suspects(start)[0].revision, 3);
        let by = "rescuer".to_owned();
        let recovering = apply(&running(), &Event::TakeOver { runner, by });
        leases.observe(&job(), 4, Some(&recovering), start);
        assert!(leases.suspects(start).is_empty());
        assert_eq!(leases.ended(runner, Why::ProcessGone, start), None);
        assert!(leases.suspects(start).is_empty());
    }

    #[test]
    fn the_end_of_a_runner_says_nothing_of_the_next_one() {
        let start = Instant::now();
        let mut leases = Leases::new(start);
        leases.observe(&job(), 2, Some(&running()), start);
        leases.ended(Uuid::nil(), Why::ProcessGone, start);
        let mut next = running().lease().unwrap().clone();
        next.runner = Uuid::max();
        next.phase = starting().lease().unwrap().phase.clone();
        let next = apply(&JobState::new(Time::default()), &Event::Claim(next));
        leases.observe(&job(), 4, Some(&next), start);
        assert!(leases.suspects(start).is_empty());
    }

    #[test]
    fn a_runner_may_end_before_its_claim_is_heard_of() {
        let start = Instant::now();
        let mut leases = Leases::new(start);
        assert_eq!(leases.ended(Uuid::nil(), Why::Unavailable, start), None);
        leases.observe(&job(), 2, Some(&starting()), start);
        assert_eq!(leases.suspects(start)[0].why, Why::Unavailable);
        assert_eq!(leases.ended(Uuid::max(), Why::ProcessGone, start), None);
        assert_eq!(leases.ended.len(), 1);
        leases.ended(Uuid::from_u128(1), Why::ProcessGone, start + ENDED_KEPT);
        assert_eq!(leases.ended.len(), 1, "nobody will ask for the first");
        leases.ended(Uuid::from_u128(2), Why::ProcessGone, start + ENDED_KEPT);
        assert_eq!(leases.ended.len(), 2);
    }

    #[test]
    fn a_start_that_says_nothing_of_its_task_does_not_count() {
        let counting = [Why::Silent, Why::NotStarted, Why::ProcessGone];
        assert!(counting.into_iter().all(Why::counts));
        assert!(!Why::ManagerGone.counts() && !Why::Unavailable.counts());
    }

    #[test]
    fn only_runners_that_should_have_a_process_are_looked_for() {
        let start = Instant::now();
        let own = HashSet::from([Uuid::nil()]);
        let mut leases = Leases::new(start);
        leases.observe(&job(), 2, Some(&starting()), start);
        let claimed = start + SPAWN_WITHIN - Duration::from_millis(1);
        assert!(
            leases.runners_in("here", SPAWN_WITHIN, claimed).is_empty(),
            "its manager is about to spawn it"
        );
        assert_eq!(
            leases.runners_in("here", SPAWN_WITHIN, start + SPAWN_WITHIN),
            own
        );
        leases.observe(&job(), 3, Some(&running()), start);
        assert_eq!(leases.runners_in("here", SPAWN_WITHIN, start), own);
        assert!(leases.runners_in("there", SPAWN_WITHIN, start).is_empty());
        let stopping = apply(&running(), &Event::Stop(Ending::Cancel));
        leases.observe(&job(), 4, Some(&stopping), start);
        assert_eq!(leases.runners_in("here", SPAWN_WITHIN, start), own);
    }

    #[test]
    fn managers_that_settle_or_recover_have_no_process_to_look_for() {
        let start = Instant::now();
        let later = start + SPAWN_WITHIN;
        let (runner, by) = (Uuid::nil(), "rescuer".to_owned());
        let recovering = apply(&running(), &Event::TakeOver { runner, by });
        let settling = Lease {
            phase: Phase::Settling { decisions: vec![] },
            ..running().lease().unwrap().clone()
        };
        let settling = apply(&JobState::new(Time::default()), &Event::Claim(settling));
        for state in [recovering, settling] {
            let mut leases = Leases::new(start);
            leases.observe(&job(), 2, Some(&state), start);
            let name = state.name();
            assert!(
                leases.runners_in("here", SPAWN_WITHIN, later).is_empty(),
                "{name}"
            );
            assert_eq!(leases.of_runner(runner), None, "{name}");
            assert_eq!(leases.suspects(start + TTL)[0].why, Why::Silent, "{name}");
        }
    }

    #[test]
    fn each_reason_is_told_in_words_of_its_own() {
        use Why::{ManagerGone, NotStarted, ProcessGone, Silent, Unavailable};
        let all = [Silent, NotStarted, ManagerGone, ProcessGone, Unavailable];
        let words: HashSet<_> = all.map(Why::as_str).into();
        assert!(words.len() == all.len() && words.iter().all(|word| word.contains(' ')));
    }
}
