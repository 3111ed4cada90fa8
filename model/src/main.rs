//! `air-model`: the search and the simulation from the command line. `cargo xtask model` and
//! `cargo xtask sim` start it.

use std::process::ExitCode;
use std::time::Duration;

use air_model::search::scenario;
use air_model::search::table::{HEAD, search};
use air_model::simulation::plan::Plan;
use air_model::simulation::{run, shrink};
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
    /// Run seeds, and make the first that fails smaller
    Sim {
        /// How many
        #[arg(long, default_value_t = 1000)]
        seeds: u64,
        /// The first; with one seed, replay it and show what happens
        #[arg(long)]
        seed: Option<u64>,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().verb {
        Verb::Check { long, only, within } => check(long, only.as_deref(), within),
        Verb::Sim { seeds, seed } => sim(seed.unwrap_or(1), if seed.is_some() { 1 } else { seeds }),
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

fn sim(first: u64, count: u64) -> ExitCode {
    let begun = std::time::Instant::now();
    let (mut events, mut records) = (0, 0);
    for seed in first..first + count {
        match run(&Plan::of(seed), None) {
            Ok(run) => {
                events += run.events;
                records += run.records;
            }
            Err(failure) => {
                println!("{}", failure.log.join("\n"));
                println!("seed {seed} fails at {}: {}", failure.at, failure.text);
                println!("replay it: cargo xtask sim --seed {seed}");
                show(&shrink(Plan::of(seed), None));
                return ExitCode::FAILURE;
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{count} seeds from {first}: {events} events, {records} records, all hold, {seconds:.1} s"
    );
    ExitCode::SUCCESS
}

/// The smallest run that still fails.
fn show(plan: &Plan) {
    println!(
        "the smallest run that fails has {} managers,",
        plan.managers
    );
    println!(
        "tasks {:#?}",
        plan.tasks
            .iter()
            .map(|(at, job, task)| {
                let task = task
                    .as_ref()
                    .map(|task| (task.id.as_ref(), &task.needs, &task.labels));
                format!("{at} ms {job} {task:?}")
            })
            .collect::<Vec<_>>()
    );
    println!("deeds {:?}", plan.deeds);
    println!("faults {:?}", plan.faults);
    if let Err(failure) = run(plan, None) {
        println!("{}", failure.log.join("\n"));
        println!("{}", failure.text);
    }
}
