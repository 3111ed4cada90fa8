//! The developer commands: `cargo xtask <verb>`.
//!
//! One file per verb. This one only reads the command line and turns the result into an exit code. Nothing here is
//! part of the product, and no crate of the product may depend on it. It is the first thing that a fresh clone
//! compiles, so it stays with `clap`, `serde_json` and the standard library.

mod airflow;
mod bench;
mod chaos;
mod ci;
mod command;
mod demo;
mod docker;
mod error;
mod fuzz;
mod guards;
mod images;
mod kubernetes;
mod model;
mod mutants;
mod powercut;
mod prefect;
mod soak;
mod system;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::docker::Docker;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer commands of Air-Executor")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Find or install the outside programs that the other verbs use, and print their paths
    Tools {
        /// Which of them; all when none is named
        #[arg(value_name = "NAME")]
        names: Vec<tools::Tool>,
    },
    /// Build the binaries, find the tools, run all tests but those of containers, pods and other schedulers
    Test {
        /// Those as well: needs root, and Docker and Postgres or a Debian on which they can be installed
        #[arg(long)]
        all: bool,
        /// Handed to `cargo test`, for example `-p air-protocol`
        #[arg(
            value_name = "ARGS",
            trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        args: Vec<String>,
    },
    /// Everything that a change must pass: format, lints, docs, licences, guards, tests
    Ci,
    /// Build the container images, from what this machine has
    Images,
    /// A real Kubernetes of one node on this machine, as root
    #[command(subcommand)]
    Kubernetes(kubernetes::Verb),
    /// Measure the system beside fork and exec, in one run
    Bench {
        /// Which benchmark
        which: bench::Which,
    },
    /// Let servers, managers, runners and the network of a cluster fail under load, for minutes or hours
    Chaos(chaos::Options),
    /// Load three managers with a million tasks, and see that nothing grows
    Soak(soak::Options),
    /// Cut the power of servers under load, and count what is lost; as root
    Powercut(powercut::Options),
    /// Search every state of small scenarios for broken invariants, by the product's own decisions
    #[command(disable_help_flag = true)]
    Model(model::Options),
    /// Run random histories from seeds in virtual time, and make the first that fails smaller
    #[command(disable_help_flag = true)]
    Sim(model::Options),
    /// Leave out the guards of the code one by one, and see that the test of each fails
    Guards(guards::Options),
    /// Change the decisions in every way that cargo-mutants knows, and see that a test fails
    Mutants(mutants::Options),
    /// Hand millions of arbitrary inputs to everything that reads bytes of others
    Fuzz(fuzz::Options),
    /// Audit a source tree with the whole system on this machine, and show how
    Demo(demo::Options),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().verb {
        Verb::Tools { names } => tools::run(&names),
        Verb::Test { all, args } => {
            let docker = all.then(Docker::start).transpose();
            let with = |docker| test::Infrastructure {
                docker,
                others: all,
            };
            docker.and_then(|docker| test::run(&with(docker), &args))
        }
        Verb::Images => images::run(),
        Verb::Kubernetes(verb) => kubernetes::run(verb),
        Verb::Ci => ci::run(),
        Verb::Bench { which } => bench::run(which),
        Verb::Chaos(options) => chaos::run(&options),
        Verb::Model(options) => model::run("check", &options),
        Verb::Sim(options) => model::run("sim", &options),
        Verb::Soak(options) => soak::run(&options),
        Verb::Powercut(options) => powercut::run(&options),
        Verb::Guards(options) => guards::run(&options),
        Verb::Mutants(options) => mutants::run(&options),
        Verb::Fuzz(options) => fuzz::run(&options),
        Verb::Demo(options) => demo::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
