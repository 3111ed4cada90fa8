//! `airx submit`: queues tasks; all of them are checked before one is sent.

mod family;
mod send;

use std::collections::BTreeMap;

use air_nats::Nats;
use air_nats::jobs::Key;
use air_protocol::job::JobStatus;
use air_protocol::names::{JobName, TaskId};
use air_protocol::task::Task;
use serde::Serialize;

use crate::app::{App, count};
use crate::task_args::TaskArgs;
use crate::{Exit, Failure};

/// Options of `airx submit`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  airx submit build -- make all\n  airx submit build --needs compile --run 'make test | tee log' --wait\n  \
    airx submit build -f tasks.yaml"
)]
pub struct Args {
    /// The job; a task of a file may name another one in its field `job`
    pub job: JobName,
    /// The task.
    #[command(flatten)]
    pub task: TaskArgs,
    /// Wait until the tasks and all that they queue are done; exit code 1 when one failed
    #[arg(long)]
    pub wait: bool,
}

/// A task that NATS has stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Submitted {
    /// The job.
    pub job: JobName,
    /// The task.
    pub task: TaskId,
    /// Sequence in the stream.
    pub seq: u64,
}

/// A task and the job into which it goes.
#[derive(Debug, Clone)]
pub struct Order {
    job: JobName,
    task: Task,
}

/// Queues tasks.
///
/// # Errors
/// A task that is none (then nothing is queued), or NATS does not store one.
pub async fn run(args: Args, app: &App) -> Result<Exit, Failure> {
    let orders: Vec<_> = args
        .task
        .tasks()?
        .into_iter()
        .map(|task| order(&args.job, task))
        .collect();
    let nats = app.nats().await?;
    warn(&nats, app, &orders).await?;
    let submitted = send::all(&nats, app, orders).await?;
    app.console.data(&submitted, || {
        let line = |one: &Submitted| format!("{}/{}\n", one.job, one.task);
        let lines: String = submitted.iter().map(line).collect();
        app.console.raw(lines.as_bytes())
    })?;
    if args.wait {
        return tokio::select! {
            outcome = family::wait(&nats, app, &submitted) => outcome,
            _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted(format!(
                "interrupted; the tasks go on, and `airx wait {}` waits for them", args.job
            ))),
        };
    }
    Ok(Exit::Done)
}

fn order(job: &JobName, mut task: Task) -> Order {
    let job = task.job.take().unwrap_or_else(|| job.clone());
    Order { job, task }
}

/// Jobs that are looked at for what keeps tasks from running: with more, looking would take longer than sending.
const WARNED_OF_MAX: usize = 100;

/// Says what keeps the tasks from running.
async fn warn(nats: &Nats, app: &App, orders: &[Order]) -> Result<(), Failure> {
    app.warn_unless_managed(nats).await?;
    let mut by_job: BTreeMap<&JobName, Vec<TaskId>> = BTreeMap::new();
    for order in orders {
        by_job
            .entry(&order.job)
            .or_default()
            .extend(order.task.id.clone());
    }
    for (job, ids) in by_job.into_iter().take(WARNED_OF_MAX) {
        warn_of_job(nats, app, job).await?;
        warn_of_ids(nats, app, job, ids).await?;
    }
    Ok(())
}

async fn warn_of_job(nats: &Nats, app: &App, job: &JobName) -> Result<(), Failure> {
    let key = nats.job(job).await?;
    match key.state().map(|state| &state.status) {
        Some(JobStatus::Failed { .. }) => app.console.warn(format_args!(
            "the job {job} has failed, so the tasks wait: `airx retry {job}` runs its failed tasks again, `airx resume {job}` goes on without them"
        )),
        Some(JobStatus::Removing) => app.console.warn(format_args!(
            "the job {job} is being removed, and the tasks may be removed with it"
        )),
        _ => {}
    }
    if let Key::Garbage(_, reason) | Key::Newer(_, reason) = &key {
        app.console.warn(format_args!(
            "the key of the job {job} cannot be read: {reason}"
        ));
    }
    match nats.spec(job).await?.0 {
        Ok(spec) if spec.paused => app.console.warn(format_args!(
            "the job {job} is paused, so the tasks wait; `airx resume {job}` lets it go on"
        )),
        Ok(_) => {}
        Err(reason) => app.console.warn(format_args!(
            "the spec of the job {job} is invalid, so the tasks wait: {reason}; mend it with `airx spec {job} edit`"
        )),
    }
    Ok(())
}

/// Tasks whose id has been used: the same id runs once.
async fn warn_of_ids(
    nats: &Nats,
    app: &App,
    job: &JobName,
    ids: Vec<TaskId>,
) -> Result<(), Failure> {
    let ids: Vec<_> = ids.into_iter().map(|id| (job.clone(), id)).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let used = nats.last_records(job, &ids).await?.records;
    let mut over: Vec<_> = used.values().map(|(_, record)| record).collect();
    over.sort_by(|a, b| a.task.cmp(&b.task));
    if let Some(record) = over.first() {
        let more = match over.len() as u64 - 1 {
            0 => String::new(),
            more => format!(" (and {})", count(more, "other")),
        };
        app.console.warn(format_args!(
            "{job}/{}{more} was submitted before and is {}: the same id runs once; `airx retry {job} {}` runs it again if it failed",
            record.task, record.status.as_str(), record.task
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use air_protocol::task::Work;

    #[test]
    fn the_job_of_a_task_overrides_the_command_line() {
        let (a, b): (JobName, JobName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let mut task = Task::new(Work::Run("x".into()));
        assert_eq!(order(&a, task.clone()).job, a);
        task.job = Some(b.clone());
        let order = order(&a, task);
        assert_eq!((order.job, order.task.job), (b, None));
    }
}
