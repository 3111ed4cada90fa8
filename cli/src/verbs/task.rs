//! `airx task add`: inside a task, queues a sub-task by one line in the file `$AIR_TASKS`. Needs no NATS.

use std::io::Write as _;

use air_protocol::names::JobName;
use clap::Subcommand;

use crate::app::App;
use crate::task_args::TaskArgs;
use crate::{Exit, Failure};

/// Options of `airx task`.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub verb: TaskVerb,
}

/// What `airx task` can do.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one in a process")]
pub enum TaskVerb {
    /// Queue a sub-task: it exists exactly if this task succeeds
    Add(Add),
}

/// Options of `airx task add`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example, in a task:\n  airx task add --id part-1 -- ./work part-1")]
pub struct Add {
    /// The job into which it is queued [default: this task's job]
    #[arg(long)]
    pub job: Option<JobName>,
    /// The task.
    #[command(flatten)]
    pub task: TaskArgs,
}

/// Appends the sub-tasks to `$AIR_TASKS`.
///
/// # Errors
/// It is not in a task, or the sub-task is none.
pub fn run(args: Args, app: &App) -> Result<Exit, Failure> {
    let TaskVerb::Add(add) = args.verb;
    let file = std::env::var_os("AIR_TASKS").filter(|file| !file.is_empty());
    let Some(file) = file else {
        return Err(Failure::Usage(
            "`airx task add` works inside a task only (AIR_TASKS is not set); queue tasks from outside with `airx submit JOB`"
                .to_owned(),
        ));
    };
    let mut lines = Vec::new();
    let tasks = add.task.tasks()?;
    let added = tasks.len() as u64;
    for mut task in tasks {
        if task.job.is_none() {
            task.job.clone_from(&add.job);
        }
        serde_json::to_writer(&mut lines, &task)
            .map_err(|error| Failure::io("write a task")(error.into()))?;
        lines.push(b'\n');
    }
    let path = file.to_string_lossy();
    // One write of whole lines: processes of a task may append at the same time.
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(&file)
        .and_then(|mut file| file.write_all(&lines))
        .map_err(Failure::io(format!("append to {path} (AIR_TASKS)")))?;
    if app.console.live {
        app.console.note(format_args!(
            "added {}",
            crate::app::count(added, "sub-task")
        ));
    }
    Ok(Exit::Done)
}
