//! `airx approve`: lets tasks run that wait for approval.

use crate::app::App;
use crate::reply::{Decision, Said, reply};
use crate::{Exit, Failure};

/// Options of `airx approve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "An approval holds for all further attempts of the task.")]
pub struct Args {
    #[command(flatten)]
    decision: Decision,
}

/// Lets the tasks run.
///
/// # Errors
/// A task that is not there, or that waits for nobody.
pub async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let decision = &args.decision;
    let said = Said::Approve(&decision.note);
    reply(app, &decision.job, &decision.tasks, said).await
}
