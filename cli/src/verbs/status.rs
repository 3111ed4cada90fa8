//! `airx status`: all jobs in a table, or one job in detail.

mod all;
mod one;

use std::time::Duration;

use air_nats::Nats;

use crate::app::App;
use crate::console::Format;
use crate::select::{self, Selection, is_pattern};
use crate::{Exit, Failure};

/// Options of `airx status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The job, or several of them: patterns such as 'build-*', with commas between [default: all jobs]
    #[arg(value_name = "JOB")]
    pub job: Option<String>,
    /// Go on and show each change, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
}

/// What `word` means, as text: all jobs, several, or one.
async fn text(nats: &Nats, app: &App, word: Option<&str>) -> Result<String, Failure> {
    match word {
        None => all::text(nats, app, None).await,
        Some(word) if is_pattern(word) || word.contains(',') => {
            let jobs = select::jobs(nats, &[word.to_owned()], &Selection::default()).await?;
            all::text(nats, app, Some(&jobs)).await
        }
        Some(word) => {
            let job = word.parse().map_err(|error| select::usage(&error))?;
            one::text(nats, app, &job).await
        }
    }
}

/// Time between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// Shows the status.
///
/// # Errors
/// There is no such job, or NATS does not answer.
pub async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let nats = app.nats().await?;
    let mut shown = String::new();
    loop {
        let text = text(&nats, app, args.job.as_deref()).await?;
        if !args.watch {
            app.console.raw(text.as_bytes())?;
            return Ok(Exit::Done);
        }
        if app.console.colour && app.console.format == Format::Table {
            app.console.raw(format!("\x1b[H\x1b[2J{text}").as_bytes())?;
        } else if text != shown {
            let gap = if shown.is_empty() || app.console.format != Format::Table {
                ""
            } else {
                "\n"
            };
            app.console.raw(format!("{gap}{text}").as_bytes())?;
        }
        shown = text;
        tokio::time::sleep(PAUSE).await;
    }
}
