//! `airx resume`: a paused job goes on, and so does a failed one, without its failed tasks.

use air_protocol::job::Event;
use air_protocol::spec::Spec;

use crate::app::App;
use crate::change::{self, Changed};
use crate::select::{self, Selection};
use crate::{Exit, Failure};

/// Options of `airx resume`.
#[derive(Debug, clap::Args)]
#[command(after_help = "`airx retry` runs the failed tasks again instead.")]
pub struct Args {
    /// Jobs: names, or patterns such as 'build-*'
    #[arg(value_name = "JOB")]
    pub jobs: Vec<String>,
    /// Which of them.
    #[command(flatten)]
    pub selection: Selection,
}

/// Lets jobs go on.
///
/// # Errors
/// A job that cannot go on, as one that is being cancelled.
pub async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let nats = app.nats().await?;
    for job in select::jobs(&nats, &args.jobs, &args.selection).await? {
        let awake = |spec: &Spec| {
            Ok(Spec {
                paused: false,
                ..spec.clone()
            })
        };
        let unpaused = change::spec(&nats, &job, awake).await? == Changed::Yes;
        let resumed = match change::job(&nats, &job, &Event::Resume, false).await {
            Ok(changed) => changed == Changed::Yes,
            // A job without a key is new, or has only a spec: there was nothing to resume but the pause.
            Err(Failure::NoJob(_)) if unpaused || nats.last_queued(&job).await?.is_some() => false,
            Err(failure) => return Err(failure),
        };
        let said = match (unpaused, resumed) {
            (_, true) => "goes on without its failed tasks",
            (true, false) => "goes on",
            (false, false) => "is neither paused nor failed",
        };
        app.console.note(format_args!("{job}: {said}"));
    }
    Ok(Exit::Done)
}
