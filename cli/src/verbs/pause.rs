//! `airx pause`: no further task of a job is started; what runs goes on.

use air_protocol::spec::Spec;

use crate::app::App;
use crate::change::{self, Changed};
use crate::select::{self, Selection};
use crate::{Exit, Failure};

/// Options of `airx pause`.
#[derive(Debug, clap::Args)]
#[command(after_help = "A job may be paused before it has tasks. `airx resume` lets it go on.")]
pub struct Args {
    /// Jobs: names, or patterns such as 'build-*'
    #[arg(value_name = "JOB")]
    pub jobs: Vec<String>,
    /// Which of them.
    #[command(flatten)]
    pub selection: Selection,
}

/// Pauses jobs.
///
/// # Errors
/// A job that cannot be paused.
pub async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let nats = app.nats().await?;
    for job in select::jobs(&nats, &args.jobs, &args.selection).await? {
        let paused = |spec: &Spec| {
            Ok(Spec {
                paused: true,
                ..spec.clone()
            })
        };
        match change::spec(&nats, &job, paused).await? {
            Changed::Yes => app.console.note(format_args!("{job}: paused")),
            Changed::No => app.console.note(format_args!("{job}: is paused already")),
        }
    }
    Ok(Exit::Done)
}
