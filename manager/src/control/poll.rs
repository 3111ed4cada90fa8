//! The poll: the truth, where everything else is for speed.
//!
//! Every few seconds a manager compares the queues with the keys of jobs, and looks at what does not fit.

use std::time::Instant;

use air_nats::queue::Queues;
use air_nats::{End, Error, Nats};
use air_protocol::names::JobName;

use super::{Control, Done, UnderWay};
use crate::budget;
use crate::leases::Leases;
use crate::shared::now;

/// Quiet jobs that one poll looks at for records that nobody has folded.
const QUIET_PER_POLL: usize = 200;

/// How far a watch has told what its bucket holds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    /// The last revision that it told.
    pub(super) seen: u64,
    /// The last revision that was there at the last poll: told by the next one.
    polled: u64,
}

/// How far this manager had seen the streams when a poll began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    jobs: u64,
    specs: u64,
    stream: u64,
}

/// What a poll sees.
#[derive(Debug)]
pub(crate) struct Sight {
    queues: Queues,
    jobs: End,
    specs: End,
    /// Quiet jobs with a record that is not folded.
    behind: Vec<JobName>,
    before: Seen,
}

impl Sight {
    /// Whether a stream is behind what was seen of it: the server came up with an older state.
    fn went_back(&self) -> bool {
        self.jobs.written < self.before.jobs
            || self.specs.written < self.before.specs
            || self.queues.last_seq < self.before.stream
    }
}

async fn sight(nats: &Nats, before: Seen, quiet: Vec<(JobName, u64)>) -> Result<Sight, Error> {
    let jobs = nats.jobs_end().await?;
    let specs = nats.specs_end().await?;
    let queues = nats.queues().await?;
    let mut behind = Vec::new();
    for (job, accounted) in quiet {
        match nats.records_after(&job, accounted, 1).await {
            Ok((records, _)) if records.is_empty() => {}
            Ok(_) | Err(Error::Newer { .. }) => behind.push(job),
            Err(error) => return Err(error),
        }
    }
    Ok(Sight {
        queues,
        jobs,
        specs,
        behind,
        before,
    })
}

impl Control {
    pub(super) fn start_poll(&mut self) {
        self.look_for_runners();
        let skip = if self.walk < self.quiet.len() {
            self.walk
        } else {
            0
        };
        let walked = self.quiet.iter().skip(skip).take(QUIET_PER_POLL);
        let walked: Vec<_> = walked.map(|(job, quiet)| (job.clone(), *quiet)).collect();
        for (job, quiet) in &walked {
            let keep = self.shared.spec(job).unwrap_or_default().keep();
            if quiet.expires && now().since(quiet.updated) >= keep {
                self.agenda.urgently(job);
            }
        }
        let quiet: Vec<_> = walked
            .into_iter()
            .map(|(job, quiet)| (job, quiet.accounted))
            .collect();
        self.walk = skip + quiet.len();
        let shared = self.shared.clone();
        self.spawn(UnderWay::Other, async move {
            if let Err(error) = budget::poll(&shared).await {
                tracing::warn!(%error, "could not look at the accounts of budgets");
            }
            Done::Nothing
        });
        let nats = self.shared.nats.clone();
        let before = Seen {
            jobs: self.jobs_told.seen,
            specs: self.specs_told.seen,
            stream: self.stream_seen,
        };
        self.spawn(UnderWay::Other, async move {
            Done::Poll(sight(&nats, before, quiet).await)
        });
    }

    /// Forgets all that was remembered of the server's streams, and has the watches tell it again: what
    /// is remembered may be what the server has lost, and sequences may be other messages' by now.
    pub(super) fn begin_anew(&mut self) {
        self.era = self.shared.era();
        self.known.clear();
        self.quiet.clear();
        self.backlogs.clear();
        self.over_budget.clear();
        self.parked.clear();
        self.leases = Leases::new(Instant::now());
        self.shared.forget();
        self.shared.fleet.forget_keys();
        self.jobs_told = Told::default();
        self.specs_told = Told::default();
        self.stream_seen = 0;
        self.remake.send_modify(|count| *count += 1);
    }

    pub(super) fn on_poll(&mut self, sight: Sight) {
        if sight.went_back() {
            tracing::error!(
                "the server's streams are older than what was seen of them; taking them as they are"
            );
            self.shared.went_back();
            self.begin_anew();
        }
        self.stream_seen = self.stream_seen.max(sight.queues.last_seq);
        let hangs = self.jobs_told.hangs() || self.specs_told.hangs();
        if hangs {
            tracing::warn!(jobs = ?self.jobs_told, specs = ?self.specs_told, "a watch hangs; making both anew");
            self.remake.send_modify(|count| *count += 1);
        }
        self.jobs_told.polled = sight.jobs.newest;
        self.specs_told.polled = sight.specs.newest;
        for job in sight.queues.jobs.keys() {
            self.look_for_tasks(job);
        }
        for job in &sight.behind {
            self.agenda.urgently(job);
        }
        let open: Vec<_> = self
            .known
            .iter()
            .filter(|(_, known)| is_open(known))
            .map(|(job, _)| job.clone())
            .collect();
        for job in open {
            self.agenda.urgently(&job);
        }
        for subject in sight.queues.bad {
            tracing::debug!(subject, "a queue of a name that no job can have");
            if let Some(name) = self
                .shared
                .nats
                .names()
                .job_token(&subject)
                .map(str::to_owned)
            {
                let shared = self.shared.clone();
                self.spawn(UnderWay::Other, async move {
                    super::hear::reject(&shared, &name).await;
                    Done::Nothing
                });
            }
        }
    }
}

impl Told {
    fn hangs(&self) -> bool {
        self.seen < self.polled
    }
}

/// Whether a job's key says that something is to be done about it.
fn is_open(known: &super::Known) -> bool {
    known
        .key
        .state()
        .is_none_or(|state| state.lease().is_none())
}
