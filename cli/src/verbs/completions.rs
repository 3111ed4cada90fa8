//! `airx completions`: writes the completions for a shell.

use clap_complete::Shell;

use crate::app::App;
use crate::{Exit, Failure};

/// Options of `airx completions`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  airx completions bash > ~/.local/share/bash-completion/completions/airx"
)]
pub struct Args {
    /// The shell
    pub shell: Shell,
}

/// Writes the completions to stdout.
///
/// # Errors
/// Nobody reads them.
pub fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let mut bytes = Vec::new();
    clap_complete::generate(args.shell, &mut crate::command(), "airx", &mut bytes);
    app.console.raw(&bytes)?;
    Ok(Exit::Done)
}
