//! `cargo xtask bench`: builds what is measured as it is shipped, and measures it.

use std::path::Path;

use clap::ValueEnum;

use crate::docker::Docker;
use crate::error::Result;
use crate::test::{self, Infrastructure};
use crate::{command, tools, workspace};

/// A benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Which {
    /// A chain, many jobs, publish to start, idle cost; about two minutes
    Quick,
    /// 100,000 sub-tasks of one task, all run; about five minutes
    Fanout,
    /// What a task costs on each backend until it starts, beside what the infrastructure costs by itself; some ten minutes, as
    /// root, as `test --all`
    Backends,
}

/// How often each is measured on a backend.
const ROUNDS: &str = "9";

/// Builds and runs a benchmark.
pub(crate) fn run(which: Which) -> Result<()> {
    command::run(&mut command::cargo(
        "build --release -p airx -p air-runner -p air-bench --bins",
    ))?;
    let built = workspace::target()?.join("release");
    let name = match which {
        Which::Backends => return backends(&built),
        Which::Quick => "quick",
        Which::Fanout => "fanout",
    };
    let mut bench = std::process::Command::new(built.join("air-bench"));
    command::run(
        bench
            .arg(name)
            .env("AIR_BIN_DIR", &built)
            .env("AIR_NATS_SERVER", tools::nats_server()?),
    )
}

/// The case `overhead` of the conformance suite, by every backend that has it, with the programs that were `built`.
fn backends(built: &Path) -> Result<()> {
    let infrastructure = Infrastructure {
        docker: Some(Docker::start()?),
        others: true,
    };
    let packages = "-p air-tests -p air-containers -p air-kubernetes -p air-schedulers";
    let suites =
        "--test backends --test containers --test kubernetes --test airflow --test prefect";
    let cases = "-- overhead --nocapture --test-threads 1";
    let args: Vec<_> = [packages, suites, cases]
        .iter()
        .flat_map(|line| line.split(' ').map(str::to_owned))
        .collect();
    let built = built.display().to_string();
    let variables = [
        ("AIR_OVERHEAD_ROUNDS", ROUNDS),
        ("AIR_BIN_DIR", built.as_str()),
    ];
    test::run_with(&infrastructure, &args, &variables)
}
