//! `airx approve`: lets tasks run that wait for approval.

use air_protocol::names::{JobName, TaskId};

use crate::app::App;
use crate::reply::{Said, reply};
use crate::{Exit, Failure};

/// Options of `airx approve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "An approval holds for all further attempts of the task.")]
pub struct Args {
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

/// Lets the tasks run.
///
/// # Errors
/// A task that is not there, or that waits for nobody.
pub async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    reply(app, &args.job, &args.tasks, Said::Approve(&args.note)).await
}
