//! `airx rm`: removes jobs with all that is kept of them.

use std::io::Write as _;

use air_nats::Nats;
use air_nats::jobs::Key;
use air_protocol::job::{Event, JobStatus};
use air_protocol::lease::Ending;
use air_protocol::names::JobName;
use air_protocol::time::Span;

use crate::app::{App, within};
use crate::change;
use crate::follow::Follow;
use crate::progress::Progress;
use crate::select::{self, Selection};
use crate::{Exit, Failure};

/// Options of `airx rm`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Queue, schedules, records, logs, blobs and spec are deleted; what runs is stopped.\n\
    The managers do it, and after a running task was stopped they wait for one lease TTL first."
)]
pub struct Args {
    /// Jobs: names, or patterns such as 'build-*'
    #[arg(value_name = "JOB")]
    pub jobs: Vec<String>,
    /// Which of them.
    #[command(flatten)]
    pub selection: Selection,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Do not wait until the jobs are gone
    #[arg(long)]
    pub no_wait: bool,
    /// Longest time to wait
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Span>,
}

/// Removes jobs.
///
/// # Errors
/// A job that is not there, or whose time is over.
pub async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let nats = app.nats().await?;
    let jobs = select::jobs(&nats, &args.jobs, &args.selection).await?;
    if !args.yes && app.console.can_ask && !sure(&jobs)? {
        return Err(Failure::Refused("nothing was removed".to_owned()));
    }
    for job in &jobs {
        let create = is_there(&nats, job).await?;
        change::job(&nats, job, &Event::Stop(Ending::Remove), create).await?;
    }
    if args.no_wait {
        app.console
            .note("removing; `airx status` shows when it is done");
        return Ok(Exit::Done);
    }
    app.warn_unless_managed(&nats).await?;
    let timeout = args.timeout.map(|span| span.0);
    for job in &jobs {
        let what = format!("{job} was not removed");
        within(timeout, &what, gone(&nats, app, job)).await?;
        app.console.note(format_args!("{job}: removed"));
    }
    Ok(Exit::Done)
}

/// Whether anything is kept of a job that has no key.
async fn is_there(nats: &Nats, job: &JobName) -> Result<bool, Failure> {
    Ok(nats.last_queued(job).await?.is_some()
        || nats.spec(job).await?.1 > 0
        || !nats.records_after(job, 0, 1).await?.0.is_empty()
        || !nats.scheduled(job).await?.is_empty())
}

/// Waits until a job is gone, or was made anew.
async fn gone(nats: &Nats, app: &App, job: &JobName) -> Result<(), Failure> {
    let progress = Progress::new(&app.console, &format!("removing {job}"));
    let mut follow = Follow::new(nats, job);
    loop {
        follow.changed().await;
        match nats.job(job).await? {
            Key::Absent | Key::Deleted(_) => return Ok(()),
            Key::Garbage(..) => {}
            Key::Newer(_, reason) => return Err(change::newer(job, &reason)),
            Key::State(state, _) => match state.status {
                JobStatus::Removing | JobStatus::Working { .. } => {
                    progress.show(0, 0, &state.name());
                }
                _ => return Ok(()),
            },
        }
    }
}

fn sure(jobs: &[JobName]) -> Result<bool, Failure> {
    let names: Vec<_> = jobs.iter().map(JobName::as_str).collect();
    let mut err = std::io::stderr().lock();
    write!(
        err,
        "remove {} with all that is kept of it? [y/N] ",
        names.join(", ")
    )
    .and_then(|()| err.flush())
    .map_err(Failure::io("ask"))?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(Failure::io("read the answer"))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
