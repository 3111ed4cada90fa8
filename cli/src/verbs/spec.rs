//! `airx spec`: what a job is told: shown, changed key by key, or edited as a whole.

mod edit;
mod set;

use air_protocol::names::JobName;
use air_protocol::spec::Spec;
use clap::Subcommand;

use crate::app::App;
use crate::change::{self, Changed};
use crate::{Exit, Failure, yaml};

/// Options of `airx spec`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  airx spec build set timeout=2h retry.max=5 on_failure=continue env.LANG=C labels.team=core\n  \
    airx spec build set timeout=      (back to the default)\n  airx spec build edit\n\n\
    Keys: paused, on_failure (stop, continue), timeout, retry.max, retry.backoff, retry.max_backoff, env.NAME, backend,\n\
    image, resources.cpu, resources.memory, labels.NAME, lease_ttl, keep, needs_timeout, wire (json, msgpack)"
)]
pub struct Args {
    /// The job
    pub job: JobName,
    /// What to do [default: get].
    #[command(subcommand)]
    pub verb: Option<SpecVerb>,
}

impl Args {
    /// Whether an editor owns the terminal meanwhile.
    pub fn asks_an_editor(&self) -> bool {
        matches!(self.verb, Some(SpecVerb::Edit))
    }
}

/// What `airx spec` can do.
#[derive(Debug, Subcommand)]
pub enum SpecVerb {
    /// Show the spec
    Get,
    /// Change keys
    Set {
        /// A key and its value; without a value the key goes back to its default
        #[arg(value_name = "KEY=VALUE", required = true)]
        pairs: Vec<String>,
    },
    /// Change the spec in $VISUAL or $EDITOR
    Edit,
}

/// Shows or changes a spec.
///
/// # Errors
/// A key or value that is none, or NATS does not answer.
pub async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let nats = app.nats().await?;
    let job = &args.job;
    let changed = match &args.verb {
        None | Some(SpecVerb::Get) => {
            let (spec, _) = nats.spec(job).await?;
            let spec = spec.map_err(|reason| change::invalid_spec(job, &reason))?;
            app.console
                .data(&spec, || app.console.raw(text(&spec).as_bytes()))?;
            return Ok(Exit::Done);
        }
        Some(SpecVerb::Set { pairs }) => {
            let change = |spec: &Spec| set::apply(spec, pairs);
            change::spec(&nats, job, change).await?
        }
        Some(SpecVerb::Edit) => edit::run(&nats, app, job).await?,
    };
    app.console.note(match changed {
        Changed::Yes => format!("{job}: changed; managers heed it within their poll"),
        Changed::No => format!("{job}: it was so already"),
    });
    Ok(Exit::Done)
}

/// A spec as people edit it.
fn text(spec: &Spec) -> String {
    yaml::write(&serde_json::to_value(spec).unwrap_or_default())
}
