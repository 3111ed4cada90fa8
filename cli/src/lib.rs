//! The command line of Air-Executor, as a library: [`run`] is `airx`, [`command`] describes it.
//!
//! One file in [`verbs`] is one verb. What several verbs share stands beside it: [`select`] finds the
//! jobs that are meant, [`task_view`] what each task is doing, [`change`] writes keys and specs by
//! compare-and-swap, [`reply`] what people say to parked tasks. Nothing here decides what runs, and nothing but the crate `air-nats` talks to NATS.

pub mod app;
pub mod args;
pub mod change;
pub mod console;
pub mod context;
mod exit;
mod failure;
pub mod follow;
pub mod logging;
pub mod progress;
pub mod reply;
pub mod select;
pub mod table;
pub mod task_args;
pub mod task_view;
pub mod tasks_file;
pub mod verbs;
pub mod yaml;

pub use args::{Cli, command};
pub use exit::Exit;
pub use failure::Failure;

use app::App;
use console::Console;

/// Runs one command line. What goes wrong is told on stderr.
pub async fn run(cli: Cli) -> Exit {
    let app = App {
        console: Console::new(cli.global.output),
        flags: cli.global.flags(),
    };
    let outcome = if cli.verb.ends_itself() {
        verbs::run(cli.verb, &app).await
    } else {
        tokio::select! {
            // A verb that has words for it is asked first.
            biased;
            outcome = verbs::run(cli.verb, &app) => outcome,
            _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
        }
    };
    match outcome {
        Ok(exit) => exit,
        Err(failure) => {
            if !matches!(failure, Failure::Hangup) {
                app.console.error(&failure);
            }
            failure.exit()
        }
    }
}
