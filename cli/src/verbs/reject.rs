//! `airx reject`: fails tasks that wait for a person.

use crate::app::App;
use crate::reply::{Decision, Said, reply};
use crate::{Exit, Failure};

/// Options of `airx reject`.
#[derive(Debug, clap::Args)]
#[command(after_help = "`airx retry JOB TASK` has a rejected task ask again.")]
pub struct Args {
    #[command(flatten)]
    decision: Decision,
}

/// Fails the tasks.
///
/// # Errors
/// A task that is not there, or that waits for nobody.
pub async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let decision = &args.decision;
    let said = Said::Reject(&decision.note);
    reply(app, &decision.job, &decision.tasks, said).await
}
