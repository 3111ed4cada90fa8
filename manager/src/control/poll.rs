//! The poll: the truth, where everything else is for speed.
//!
//! Every few seconds a manager compares the queues with the keys of jobs, and looks at what does not fit.

use std::collections::HashMap;

use air_nats::{Error, Nats};
use air_protocol::names::JobName;

use super::{Control, Done};
use crate::shared::now;

/// Quiet jobs that one poll looks at for records that nobody has folded.
const QUIET_PER_POLL: usize = 200;

/// What a poll sees.
#[derive(Debug)]
pub(crate) struct Sight {
    /// Messages in the queue of each job that has any.
    queues: HashMap<JobName, u64>,
    /// Subjects whose names no job can have.
    bad: Vec<String>,
    /// The last revision in the bucket of keys.
    revision: u64,
    /// Quiet jobs with a record that is not folded.
    behind: Vec<JobName>,
}

async fn sight(nats: &Nats, quiet: Vec<(JobName, u64)>) -> Result<Sight, Error> {
    let revision = nats.jobs_revision().await?;
    let (queues, bad) = nats.queues().await?;
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
        bad,
        revision,
        behind,
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
            if now().since(quiet.updated) >= keep {
                self.agenda.urgently(job);
            }
        }
        let quiet: Vec<_> = walked
            .into_iter()
            .map(|(job, quiet)| (job, quiet.accounted))
            .collect();
        self.walk = skip + quiet.len();
        let nats = self.shared.nats.clone();
        self.tasks
            .spawn(async move { Done::Poll(sight(&nats, quiet).await) });
    }

    pub(super) fn on_poll(&mut self, sight: Sight) {
        if self.revision < self.polled {
            tracing::warn!(
                seen = self.revision,
                expected = self.polled,
                "the watch of keys hangs; making it anew"
            );
            self.remake.send_modify(|count| *count += 1);
        }
        self.polled = sight.revision;
        for job in sight.queues.keys() {
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
        for subject in sight.bad {
            tracing::debug!(subject, "a queue of a name that no job can have");
            if let Some(name) = self
                .shared
                .nats
                .names()
                .job_token(&subject)
                .map(str::to_owned)
            {
                let shared = self.shared.clone();
                self.tasks.spawn(async move {
                    super::hear::reject(&shared, &name).await;
                    Done::Nothing
                });
            }
        }
    }
}

/// Whether a job's key says that something is to be done about it.
fn is_open(known: &super::Known) -> bool {
    known
        .key
        .state()
        .is_none_or(|state| state.lease().is_none())
}
