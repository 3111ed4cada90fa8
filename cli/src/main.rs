//! The program `airx`: reads the command line, runs the verb, gives its exit code.

use std::process::ExitCode;

use airx::{Cli, Exit};
use clap::FromArgMatches as _;

fn main() -> ExitCode {
    let matches = match airx::command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            let exit = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
            // Nobody can be told that telling failed.
            let _ = error.print();
            return exit.into();
        }
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return Exit::Usage.into();
        }
    };
    match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime.block_on(airx::run(cli)).into(),
        Err(error) => {
            eprintln!("airx: failed to start: {error}");
            Exit::Failed.into()
        }
    }
}
