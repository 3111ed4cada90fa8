//! `cargo xtask test`: builds the binaries once, finds the tools, runs `cargo test` with all in its environment.
//!
//! The tests read `AIR_BIN_DIR` (folder of `airx` and `air-runner`), `AIR_NATS_SERVER`, `AIR_NATS_CLI` and `AIR_CLAUDE`. A
//! test never builds or installs anything itself.

mod infrastructure;

use std::fmt;
use std::io::Write;
use std::process::Command;
use std::time::Instant;

use crate::error::Result;
use crate::{command, system, tools, workspace};

pub(crate) use infrastructure::Infrastructure;

/// Runs all tests, or those that `args` (of `cargo test`) choose, but for those whose infrastructure is missing. The last line is
/// the sum over all test binaries.
pub(crate) fn run(infrastructure: &Infrastructure, args: &[String]) -> Result<()> {
    run_with(infrastructure, args, &[])
}

/// The same, with variables that tests read.
pub(crate) fn run_with(
    infrastructure: &Infrastructure,
    args: &[String],
    variables: &[(&str, &str)],
) -> Result<()> {
    let started = Instant::now();
    let mut test = with_binaries_and_tools()?;
    test.args(infrastructure.packages(args));
    let _running = infrastructure.start(args, &mut test)?;
    test.args(args).envs(variables.iter().copied());
    let mut sum = Sum::default();
    let done = command::each_line(&mut test, |line| {
        sum.add(line);
        // A reader that has gone away (`| head`) must not fail the run.
        let _ = writeln!(std::io::stdout(), "{line}");
    });
    println!(
        "built and tested in {:.1} s",
        started.elapsed().as_secs_f64()
    );
    println!("{sum}");
    done
}

/// Runs the long form of one whole-system test, which these variables ask for.
pub(crate) fn long(
    name: &str,
    test: &str,
    variables: impl IntoIterator<Item = (&'static str, String)>,
) -> Result<()> {
    let mut long = with_binaries_and_tools()?;
    long.args(["-p", "air-tests", "--test", name, "--"])
        .args(["--exact", test, "--nocapture"])
        .envs(variables);
    command::run(&mut long)
}

/// `cargo test`, in the environment that tests read, with the binaries that they run.
fn with_binaries_and_tools() -> Result<Command> {
    command::run(&mut command::cargo(
        "build --workspace --exclude xtask --bins",
    ))?;
    system::ensure_for_tests();
    let mut test = command::cargo("test");
    test.env("AIR_BIN_DIR", workspace::target()?.join("debug"))
        .env("AIR_NATS_SERVER", tools::nats_server()?)
        .env("AIR_NATS_CLI", tools::nats()?)
        .env("AIR_CLAUDE", tools::claude()?);
    Ok(test)
}

/// What all test binaries together reported.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Sum {
    /// Counts a line such as `test result: ok. 5 passed; 0 failed; 1 ignored; …`; any other line is nothing to it.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line
            .strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for (number, what) in counts.split("; ").filter_map(|count| count.split_once(' ')) {
            let number = number.parse::<u64>().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.ignored
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_over_all_binaries() {
        let mut sum = Sum::default();
        sum.add("test tests::one ... ok");
        sum.add("test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        sum.add("test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        assert_eq!(sum.to_string(), "7 passed, 3 failed, 1 skipped");
    }
}
