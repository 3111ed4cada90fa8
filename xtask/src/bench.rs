//! `cargo xtask bench`: builds what is measured as it is shipped, and measures it.

use clap::ValueEnum;

use crate::error::Result;
use crate::{command, tools, workspace};

/// A benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Which {
    /// A chain, many jobs, publish to start, idle cost; about two minutes
    Quick,
    /// 100,000 sub-tasks of one task, all run; about five minutes
    Fanout,
}

/// Builds and runs a benchmark.
pub(crate) fn run(which: Which) -> Result<()> {
    command::run(&mut command::cargo(
        "build --release -p airx -p air-runner -p air-bench --bins",
    ))?;
    let built = workspace::target()?.join("release");
    let mut bench = std::process::Command::new(built.join("air-bench"));
    match which {
        Which::Quick => bench.arg("quick"),
        Which::Fanout => bench.arg("fanout"),
    };
    command::run(
        bench
            .env("AIR_BIN_DIR", &built)
            .env("AIR_NATS_SERVER", tools::nats_server()?),
    )
}
