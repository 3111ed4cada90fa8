//! Replies of people to parked tasks: one record, and the message of the next attempt where the task goes on.

use air_nats::Nats;
use air_nats::commit::{Commit, Committed, NewTask, With};
use air_nats::jobs::Key;
use air_protocol::approval::{Unfit, rejected, replied};
use air_protocol::job::JobStatus;
use air_protocol::names::{JobName, TaskId};

use crate::app::{App, now};
use crate::{Exit, Failure, change};

/// Which tasks are decided, and what is kept with the decision: options of `airx approve` and `airx reject`.
#[derive(Debug, clap::Args)]
pub struct Decision {
    /// The job
    #[arg(value_name = "JOB")]
    pub job: JobName,
    /// The tasks
    #[arg(value_name = "TASK", required = true)]
    pub tasks: Vec<TaskId>,
    /// What is kept with the decision, for whoever looks later
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub note: String,
}

/// What is said.
#[derive(Debug, Clone, Copy)]
pub enum Said<'a> {
    /// The task may run.
    Approve(&'a str),
    /// It may not.
    Reject(&'a str),
    /// The answer to its question.
    Answer(&'a str),
}

impl Said<'_> {
    fn done(self) -> &'static str {
        match self {
            Self::Approve(_) => "approved",
            Self::Reject(_) => "rejected",
            Self::Answer(_) => "answered",
        }
    }
}

/// Replies to tasks of a job.
///
/// # Errors
/// There is no such task, it waits for nobody or for something else, or somebody else was faster.
pub async fn reply(
    app: &App,
    job: &JobName,
    tasks: &[TaskId],
    said: Said<'_>,
) -> Result<Exit, Failure> {
    let nats = app.nats().await?;
    refuse_ending(&nats, job).await?;
    for task in tasks {
        one(&nats, job, task, said).await?;
        app.console
            .note(format_args!("{job}/{task}: {}", said.done()));
    }
    nats.signal(job).await;
    nats.flush().await;
    Ok(Exit::Done)
}

/// A job that ends takes its parked tasks along.
async fn refuse_ending(nats: &Nats, job: &JobName) -> Result<(), Failure> {
    match nats.job(job).await? {
        Key::State(state, _)
            if matches!(state.status, JobStatus::Cancelling | JobStatus::Removing) =>
        {
            let name = state.name();
            Err(Failure::Refused(format!("{job}: it is {name}")))
        }
        Key::Newer(_, reason) => Err(change::newer(job, &reason)),
        Key::State(..) | Key::Absent | Key::Deleted(_) | Key::Garbage(..) => Ok(()),
    }
}

async fn one(nats: &Nats, job: &JobName, task: &TaskId, said: Said<'_>) -> Result<(), Failure> {
    let refused = |unfit: Unfit| match unfit {
        Unfit::Long(_) => Failure::Usage(format!("{job}/{task}: {unfit}")),
        unfit => Failure::Refused(format!("{job}/{task}: {unfit}")),
    };
    let Some((seq, last)) = nats.last_record(job, task).await? else {
        return Err(Failure::NoTask {
            job: job.clone(),
            task: task.clone(),
        });
    };
    let at = now();
    let (record, next) = match said {
        Said::Approve(note) => (replied(&last, seq, false, note, at), true),
        Said::Answer(text) => (replied(&last, seq, true, text, at), true),
        Said::Reject(note) => (rejected(&last, seq, note, at), false),
    };
    let record = record.map_err(refused)?;
    let next = next.then(|| NewTask::again(job, &last)).flatten();
    let (spec, _) = nats.spec(job).await?;
    let commit = Commit {
        job: job.clone(),
        record,
        with: next.map(With::Task).into_iter().collect(),
        wire: spec.map(|spec| spec.wire).unwrap_or_default(),
    };
    match nats.commit(&commit).await? {
        Committed::At(_) => Ok(()),
        Committed::Over => Err(Failure::Refused(format!(
            "{job}/{task}: somebody else replied to it, or cancelled it, at the same time; `airx show {job} {task}` says what it is now"
        ))),
        Committed::Refused(reason) => Err(Failure::Refused(format!(
            "{job}/{task}: NATS refuses the record: {reason}"
        ))),
    }
}
