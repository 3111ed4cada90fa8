//! `airx logs`: what tasks printed, as it was for one task, line by line with the task's id for several.

mod lines;

use air_nats::Nats;
use air_nats::direct::Stored;
use air_nats::jobs::Key;
use air_protocol::job::{JobState, JobStatus};
use air_protocol::names::{JobName, TaskId};
use serde_json::json;
use std::time::{Duration, Instant};

use crate::app::App;
use crate::console::Format;
use crate::{Exit, Failure};
use lines::Lines;

/// Options of `airx logs`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The bytes of one task are written as they are. Several tasks are written line by line, each with its id."
)]
pub struct Args {
    /// The job
    pub job: JobName,
    /// The task [default: all tasks of the job]
    pub task: Option<TaskId>,
    /// Go on until the task, or the job, is over
    #[arg(short, long)]
    pub follow: bool,
    /// Only this attempt
    #[arg(long, value_name = "N")]
    pub attempt: Option<u32>,
}

/// Chunks that one reply brings.
const PAGE: usize = 64;
/// Time after which one looks even if nothing was heard.
const POLL: Duration = Duration::from_secs(1);
/// How long, and how often, a replica is asked for what the leader has.
const LAG_MAX: Duration = Duration::from_secs(5);
const LAG_POLL: Duration = Duration::from_millis(20);

/// Shows what tasks printed.
///
/// # Errors
/// There is no such job or task, or NATS does not answer.
pub async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let nats = app.nats().await?;
    let logged = nats.logged(&args.job).await?;
    let silent = match &args.task {
        Some(task) => !logged.contains_key(task),
        None => logged.is_empty(),
    };
    if silent {
        find(&nats, args).await?;
    }
    let raw = args.task.is_some() || (!args.follow && logged.len() == 1);
    let mut lines = Lines::new(&app.console, raw);
    let mut from = 1;
    let mut hints = if args.follow {
        Some(nats.log_hints(&args.job, args.task.as_ref()).await?)
    } else {
        None
    };
    loop {
        // Whether it is over is asked before what it printed is read, so that nothing is missed.
        let over = match &hints {
            Some(_) => is_over(&nats, args).await?,
            None => true,
        };
        // Only the last look must miss nothing: the leader is asked once, and not at each chunk that is followed.
        let end = match over {
            true => nats.logs_end(&args.job, args.task.as_ref()).await?,
            false => 0,
        };
        from = copy_to(end, &nats, app, args, from, &mut lines).await?;
        match &mut hints {
            Some(hints) if !over => drop(tokio::time::timeout(POLL, hints.next()).await),
            _ => break,
        }
    }
    lines.finish()?;
    Ok(Exit::Done)
}

/// Copies all that there is from a sequence on, and at least up to `end`: a replica that lags is asked again, for a while, since what it
/// lacks may have been purged.
async fn copy_to(
    end: u64,
    nats: &Nats,
    app: &App,
    args: &Args,
    mut from: u64,
    lines: &mut Lines<'_>,
) -> Result<u64, Failure> {
    let begun = Instant::now();
    loop {
        from = copy(nats, app, args, from, lines).await?;
        if from > end || begun.elapsed() >= LAG_MAX {
            return Ok(from);
        }
        tokio::time::sleep(LAG_POLL).await;
    }
}

/// Copies all that there is from a sequence on; gives the next one.
async fn copy(
    nats: &Nats,
    app: &App,
    args: &Args,
    mut from: u64,
    lines: &mut Lines<'_>,
) -> Result<u64, Failure> {
    loop {
        let chunks = nats.logs(&args.job, args.task.as_ref(), from, PAGE).await?;
        let Some(last) = chunks.last() else {
            return Ok(from);
        };
        from = last.seq + 1;
        for chunk in &chunks {
            if args
                .attempt
                .is_none_or(|attempt| attempt == chunk.attempt())
            {
                write(nats, app, chunk, lines)?;
            }
        }
    }
}

fn write(nats: &Nats, app: &App, chunk: &Stored, lines: &mut Lines<'_>) -> Result<(), Failure> {
    let task = nats.names().task_token(&chunk.subject).unwrap_or_default();
    if app.console.format == Format::Table {
        return lines.write(task, &chunk.payload);
    }
    let text = String::from_utf8_lossy(&chunk.payload);
    let value =
        json!({ "task": task, "attempt": chunk.attempt(), "time": chunk.time, "text": text });
    app.console.item(&value, || Ok(()))
}

/// Whether the job or task exists, though it has printed nothing.
async fn find(nats: &Nats, args: &Args) -> Result<(), Failure> {
    let key = nats.job(&args.job).await?;
    let known = matches!(key, Key::State(..) | Key::Garbage(..) | Key::Newer(..));
    let Some(task) = &args.task else {
        let there = known || nats.last_queued(&args.job).await?.is_some();
        return if there {
            Ok(())
        } else {
            Err(Failure::NoJob(args.job.clone()))
        };
    };
    if nats.last_record(&args.job, task).await?.is_some() || waits(nats, args, task).await? {
        return Ok(());
    }
    Err(Failure::NoTask {
        job: args.job.clone(),
        task: task.clone(),
    })
}

async fn waits(nats: &Nats, args: &Args, task: &TaskId) -> Result<bool, Failure> {
    let (queued, _) = crate::task_view::queue(nats, &args.job, usize::MAX).await?;
    Ok(queued.iter().any(|queued| queued.id == *task))
}

async fn is_over(nats: &Nats, args: &Args) -> Result<bool, Failure> {
    if let Some(task) = &args.task {
        let last = nats.last_record(&args.job, task).await?;
        return Ok(last.is_some_and(|(_, record)| record.status.is_final()));
    }
    let last = nats.last_queued(&args.job).await?;
    Ok(match nats.job(&args.job).await? {
        Key::State(state, _) => job_is_over(&state, last),
        Key::Garbage(..) | Key::Newer(..) => false,
        Key::Absent | Key::Deleted(_) => last.is_none(),
    })
}

fn job_is_over(state: &JobState, last: Option<u64>) -> bool {
    match state.status {
        JobStatus::Completed { drained } | JobStatus::Cancelled { drained } => {
            last.is_none_or(|last| last <= drained)
        }
        JobStatus::Failed { .. } => true,
        JobStatus::Waiting
        | JobStatus::Working { .. }
        | JobStatus::Cancelling
        | JobStatus::Removing => false,
    }
}
