//! `airx status`: all jobs in a table, or one job in detail.

mod all;
mod one;

use std::time::Duration;

use air_protocol::names::JobName;

use crate::app::App;
use crate::console::Format;
use crate::{Exit, Failure};

/// Options of `airx status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The job [default: all jobs]
    pub job: Option<JobName>,
    /// Go on and show each change, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
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
        let text = match &args.job {
            None => all::text(&nats, app).await?,
            Some(job) => one::text(&nats, app, job).await?,
        };
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
