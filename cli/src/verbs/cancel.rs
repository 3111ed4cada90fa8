//! `airx cancel`: cancels jobs, or tasks of a job.

use std::collections::HashSet;

use air_nats::Nats;
use air_nats::commit::{Commit, Committed, With};
use air_nats::jobs::Key;
use air_nats::queue::Queued;
use air_protocol::budget::Leash;
use air_protocol::job::{Event, JobStatus};
use air_protocol::lease::Ending;
use air_protocol::names::{JobName, TaskId};
use air_protocol::record::{Record, Status, next_attempt};
use air_protocol::time::Span;

use crate::app::{App, now, within};
use crate::change;
use crate::follow::Follow;
use crate::progress::Progress;
use crate::select::{self, Selection};
use crate::task_view::queue;
use crate::{Exit, Failure};

/// Options of `airx cancel`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Several jobs are written with commas between: airx cancel a,b,'test-*'\n\
    The managers do it: what runs is stopped, what is queued or scheduled gets a `cancelled` record."
)]
pub struct Args {
    /// Jobs: names or patterns such as 'build-*', with commas between
    #[arg(value_name = "JOB", required_unless_present = "labels")]
    pub jobs: Option<String>,
    /// Only these tasks of the job
    #[arg(value_name = "TASK")]
    pub tasks: Vec<TaskId>,
    /// Which of them.
    #[command(flatten)]
    pub selection: Selection,
    /// Do not wait until the jobs are cancelled
    #[arg(long)]
    pub no_wait: bool,
    /// Longest time to wait
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Span>,
}

/// Cancels jobs or tasks.
///
/// # Errors
/// A job or task that is not there, or whose time is over.
pub async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let nats = app.nats().await?;
    let words: Vec<_> = args.jobs.iter().cloned().collect();
    let jobs = select::jobs(&nats, &words, &args.selection).await?;
    if !args.tasks.is_empty() {
        return cancel_tasks(&nats, app, &jobs, &args.tasks).await;
    }
    let mut stopped = Vec::new();
    for job in &jobs {
        if is_over(&nats, job).await? {
            app.console
                .note(format_args!("{job}: there is nothing to cancel"));
            continue;
        }
        change::job(&nats, job, &Event::Stop(Ending::Cancel), true).await?;
        stopped.push(job);
    }
    if stopped.is_empty() {
        return Ok(Exit::Done);
    }
    if args.no_wait {
        app.console
            .note("cancelling; `airx status` shows when it is done");
        return Ok(Exit::Done);
    }
    app.warn_unless_managed(&nats).await?;
    let timeout = args.timeout.map(|span| span.0);
    for job in stopped {
        let what = format!("{job} was not cancelled");
        within(timeout, &what, cancelled(&nats, app, job)).await?;
        app.console.note(format_args!("{job}: cancelled"));
    }
    Ok(Exit::Done)
}

/// Whether nothing of a job runs or waits.
async fn is_over(nats: &Nats, job: &JobName) -> Result<bool, Failure> {
    let last = nats.last_queued(job).await?;
    match nats.job(job).await? {
        Key::State(state, _) => Ok(match state.status {
            JobStatus::Completed { drained } | JobStatus::Cancelled { drained } => {
                last.is_none_or(|last| last <= drained)
            }
            JobStatus::Removing => {
                return Err(Failure::Refused(format!("{job}: it is being removed")));
            }
            _ => false,
        }),
        Key::Garbage(_, reason) => Err(change::garbage(job, &reason)),
        Key::Newer(_, reason) => Err(change::newer(job, &reason)),
        Key::Absent | Key::Deleted(_) => {
            if last.is_none() && nats.scheduled(job).await?.is_empty() {
                return Err(Failure::NoJob(job.clone()));
            }
            Ok(false)
        }
    }
}

/// Waits until a job is cancelled; one that goes on with newer tasks was.
async fn cancelled(nats: &Nats, app: &App, job: &JobName) -> Result<(), Failure> {
    let progress = Progress::new(&app.console, &format!("cancelling {job}"));
    let mut follow = Follow::new(nats, job);
    loop {
        follow.changed().await;
        let Key::State(state, _) = nats.job(job).await? else {
            return Ok(());
        };
        let stopping = state.lease().is_some_and(|lease| {
            lease.phase.stopping(Ending::Cancel).as_ref() == Some(&lease.phase)
        });
        if !stopping && state.status != JobStatus::Cancelling {
            return Ok(());
        }
        progress.show(0, 0, &state.name());
    }
}

async fn cancel_tasks(
    nats: &Nats,
    app: &App,
    jobs: &[JobName],
    tasks: &[TaskId],
) -> Result<Exit, Failure> {
    let [job] = jobs else {
        return Err(Failure::Usage(
            "tasks are named of one job only; write several jobs with commas between: airx cancel a,b".to_owned(),
        ));
    };
    let waiting = Waiting::of(nats, job).await?;
    for task in tasks {
        let before = cancel_task(nats, job, task, &waiting).await?;
        match before {
            Some(status) => app.console.note(format_args!(
                "{job}/{task}: it is over already ({})",
                status.as_str()
            )),
            None => app.console.note(format_args!("{job}/{task}: cancelled")),
        }
    }
    nats.signal(job).await;
    nats.flush().await;
    Ok(Exit::Done)
}

/// What waits in a job, looked up once for all tasks.
struct Waiting {
    messages: Vec<Queued>,
    ids: HashSet<TaskId>,
}

impl Waiting {
    async fn of(nats: &Nats, job: &JobName) -> Result<Self, Failure> {
        let (mut messages, _) = queue(nats, job, usize::MAX).await?;
        messages.extend(nats.scheduled(job).await?);
        let ids = messages.iter().map(|message| message.id.clone()).collect();
        Ok(Self { messages, ids })
    }
}

/// Cancels one task; gives its status if it was over already.
async fn cancel_task(
    nats: &Nats,
    job: &JobName,
    task: &TaskId,
    waiting: &Waiting,
) -> Result<Option<Status>, Failure> {
    let wire = nats
        .spec(job)
        .await?
        .0
        .map(|spec| spec.wire)
        .unwrap_or_default();
    loop {
        let last = nats.last_record(job, task).await?;
        if last.is_none() && !waiting.ids.contains(task) {
            return Err(Failure::NoTask {
                job: job.clone(),
                task: task.clone(),
            });
        }
        if let Some((_, record)) = last.as_ref().filter(|(_, record)| record.status.is_final()) {
            return Ok(Some(record.status));
        }
        let attempt = last
            .as_ref()
            .map_or(1, |(_, record)| next_attempt(record.attempt));
        let mut record = Record::new(task.clone(), Status::Cancelled, attempt, now());
        record.error = Some("cancelled by a user".to_owned());
        if let Some((seq, last)) = &last {
            record = record.follows(Some(last.status), *seq);
            (record.failures, record.losses) = (last.failures, last.losses);
            record.replies.clone_from(&last.replies);
            record.parent.clone_from(&last.parent);
            record.set_leash(Leash::of_record(last));
            record.traceparent.clone_from(&last.traceparent);
            record.spec.clone_from(&last.spec);
        }
        let message = waiting.messages.iter().find(|message| message.id == *task);
        if let Some(queued) = message.filter(|_| record.spec.is_none()) {
            record.queued = Some(queued.queued);
            record.parent.clone_from(&queued.parent);
            record.set_leash(queued.leash.clone());
            record.traceparent.clone_from(&queued.traceparent);
            record.spec = queued.task.as_ref().ok().cloned().map(|mut spec| {
                spec.id = Some(task.clone());
                spec
            });
        }
        let commit = Commit {
            job: job.clone(),
            record,
            with: vec![With::Unschedule],
            wire,
        };
        match nats.commit(&commit).await? {
            Committed::At(_) => return Ok(None),
            Committed::Over => {}
            Committed::Refused(reason) => {
                return Err(Failure::Refused(format!(
                    "{job}/{task}: NATS refuses the record: {reason}"
                )));
            }
        }
    }
}
