//! `air-model`: the search and the simulation from the command line. `cargo xtask model` and
//! `cargo xtask sim` start it.

use std::process::ExitCode;
use std::time::Duration;

use air_model::search::scenario;
use air_model::search::table::{HEAD, search};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "air-model",
    about = "Searches and simulates Air-Executor's own decisions"
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Search the scenarios, and print what was covered
    Check {
        /// The long ones too, and each to its end
        #[arg(long)]
        long: bool,
        /// Only scenarios whose name contains this
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
        /// Longest time for one scenario, in seconds
        #[arg(long, value_name = "SECONDS")]
        within: Option<u64>,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().verb {
        Verb::Check { long, only, within } => check(long, only.as_deref(), within),
    }
}

fn check(long: bool, only: Option<&str>, within: Option<u64>) -> ExitCode {
    let within = Duration::from_secs(within.unwrap_or(if long { 3600 } else { 60 }));
    let wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    println!("{HEAD}");
    let mut code = ExitCode::SUCCESS;
    for scenario in scenario::all() {
        if !wanted(scenario.name) || (scenario.long && !long) {
            continue;
        }
        let found = search(scenario, None, within, threads);
        println!("{}", found.line());
        if let Some(broken) = &found.broken {
            eprintln!("{}: {}", found.name, broken.text);
            for (number, step) in (1..).zip(&broken.steps) {
                eprintln!("{number:4}  {step:?}");
            }
            code = ExitCode::FAILURE;
        }
    }
    code
}
