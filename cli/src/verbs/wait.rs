//! `airx wait`: waits until jobs are over.

use air_nats::Nats;
use air_nats::jobs::Key;
use air_protocol::job::{JobState, JobStatus};
use air_protocol::names::JobName;
use air_protocol::time::Span;

use crate::app::{App, count, within};
use crate::change;
use crate::follow::Follow;
use crate::progress::Progress;
use crate::{Exit, Failure};

/// Options of `airx wait`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Waits for all that is queued when it is called, and for what that queues in the same job.\n\
    Exit codes: 0 completed, 1 failed or cancelled, 3 no such job, 124 timed out."
)]
pub struct Args {
    /// The jobs
    #[arg(value_name = "JOB", required = true)]
    pub jobs: Vec<JobName>,
    /// Longest time to wait, for all jobs together
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Span>,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// No task is left.
    Completed,
    /// It failed or was cancelled or removed, in words.
    Bad(String),
}

/// Waits for jobs.
///
/// # Errors
/// A job that is not there, or the time is over.
pub async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let nats = app.nats().await?;
    app.warn_unless_managed(&nats).await?;
    let wait = async {
        let mut exit = Exit::Done;
        for job in &args.jobs {
            let end = job_end(&nats, app, job).await?;
            match end {
                End::Completed => app.console.note(format_args!("{job}: completed")),
                End::Bad(what) => {
                    app.console.note(format_args!("{job}: {what}"));
                    exit = Exit::Failed;
                }
            }
        }
        Ok(exit)
    };
    within(
        args.timeout.map(|span| span.0),
        "the jobs are not over",
        wait,
    )
    .await
}

/// Waits until all that is queued in a job now is over.
///
/// # Errors
/// There is no such job, or NATS does not answer.
pub async fn job_end(nats: &Nats, app: &App, job: &JobName) -> Result<End, Failure> {
    let progress = Progress::new(&app.console, job.as_str());
    let last = nats.last_queued(job).await?.unwrap_or(0);
    let mut follow = Follow::new(nats, job);
    let mut seen = false;
    loop {
        follow.changed().await;
        // The queue before the key: a completed state that is read afterwards knows of what was gone.
        let (next, more) = nats.queued(job, 1, 1).await?;
        let settled = next.first().is_none_or(|queued| queued.seq > last);
        let key = nats.job(job).await?;
        match &key {
            Key::State(state, _) => {
                if let Some(end) = ended(job, state, last, settled) {
                    return Ok(end);
                }
                seen = true;
                show(&progress, state, more + next.len() as u64);
            }
            Key::Garbage(..) => seen = true,
            Key::Newer(_, reason) => return Err(change::newer(job, reason)),
            Key::Absent | Key::Deleted(_) if seen => {
                return Ok(End::Bad("it was removed".to_owned()));
            }
            Key::Absent | Key::Deleted(_) => {
                if next.is_empty() && nats.scheduled(job).await?.is_empty() {
                    return Err(Failure::NoJob(job.clone()));
                }
            }
        }
    }
}

/// How a job ended, if what was queued up to `last` is over; `settled` when none of it is in the queue.
fn ended(job: &JobName, state: &JobState, last: u64, settled: bool) -> Option<End> {
    match &state.status {
        JobStatus::Completed { drained } => (*drained >= last || settled).then_some(End::Completed),
        JobStatus::Cancelled { drained } => {
            let over = *drained >= last || settled;
            over.then(|| End::Bad("it was cancelled".to_owned()))
        }
        JobStatus::Failed { task } => Some(End::Bad(match task {
            Some(task) => {
                format!("it failed at the task {task}; `airx show {job} {task}` says why")
            }
            None => "it failed".to_owned(),
        })),
        JobStatus::Waiting
        | JobStatus::Working { .. }
        | JobStatus::Cancelling
        | JobStatus::Removing => None,
    }
}

fn show(progress: &Progress, state: &JobState, queued: u64) {
    let counters = &state.ledger.counters;
    let done = counters.finished();
    let running = state.lease().and_then(|lease| lease.phase.target());
    let mut text = count(queued, "message");
    text.push_str(" queued");
    if counters.retrying > 0 {
        text.push_str(&format!(", {} retrying", counters.retrying));
    }
    if let Some(target) = running {
        text.push_str(&format!(", {} runs", target.task));
    }
    progress.show(done, counters.tasks().max(done + queued), &text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use air_protocol::time::Time;

    fn end(status: JobStatus, last: u64, settled: bool) -> Option<End> {
        let state = JobState {
            status,
            ..JobState::new(Time::default())
        };
        ended(&"j".parse().unwrap(), &state, last, settled)
    }

    #[test]
    fn a_completed_job_is_over_only_with_what_was_queued() {
        let completed = |drained| JobStatus::Completed { drained };
        assert_eq!(end(completed(9), 9, false), Some(End::Completed));
        assert_eq!(end(completed(8), 9, false), None);
        assert_eq!(end(completed(8), 9, true), Some(End::Completed));
        assert_eq!(end(JobStatus::Cancelled { drained: 8 }, 9, false), None);
        assert!(matches!(
            end(JobStatus::Failed { task: None }, 9, false),
            Some(End::Bad(_))
        ));
        assert_eq!(end(JobStatus::Waiting, 0, true), None);
    }
}
