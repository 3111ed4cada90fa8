//! Benchmarks and trials on a real server with the real binaries; benchmarks beside fork and exec measured in the same run.
//!
//! `cargo xtask bench` builds what is measured and calls this. Machines differ and are noisy: read
//! the ratios. Nothing here fails because something is slow.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on panics"
)]

mod fanout;
mod powercut;
mod quick;

use std::process::ExitCode;

/// Sub-tasks of the fan-out, unless told otherwise.
const FANOUT: usize = 100_000;
/// Power cuts in each mode, unless told otherwise.
const CUTS: usize = 3;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("fanout") => {
            let count = arguments
                .next()
                .map_or(FANOUT, |text| text.parse().expect("a number of sub-tasks"));
            runtime.block_on(fanout::run(count));
        }
        Some("powercut") => {
            let cuts = arguments
                .next()
                .map_or(CUTS, |text| text.parse().expect("a number of cuts"));
            let only = arguments.next();
            if let Err(error) = runtime.block_on(powercut::run(cuts, only.as_deref())) {
                eprintln!("error: {error}");
                return ExitCode::FAILURE;
            }
        }
        _ => runtime.block_on(quick::run()),
    }
    ExitCode::SUCCESS
}
