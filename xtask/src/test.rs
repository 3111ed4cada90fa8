//! `cargo xtask test`: builds the binaries once, finds the tools, runs `cargo test` with all in its environment.
//!
//! The tests read `AIR_BIN_DIR` (folder of `airx` and `air-runner`), `AIR_NATS_SERVER`, `AIR_NATS_CLI` and `AIR_CLAUDE`. A
//! test never builds or installs anything itself.

use std::fmt;
use std::io::Write;
use std::process::Command;
use std::time::Instant;

use crate::airflow::Airflow;
use crate::docker::Docker;
use crate::error::Result;
use crate::kubernetes::Cluster;
use crate::prefect::Prefect;
use crate::{command, images, system, tools, workspace};

/// The package whose tests need Docker.
const CONTAINERS: &str = "air-containers";
/// The package whose tests need Kubernetes.
const KUBERNETES: &str = "air-kubernetes";
/// The package whose tests need other schedulers.
const SCHEDULERS: &str = "air-schedulers";
/// Its tests for which Airflow has pods.
const PODS: &str = "airflow_kubernetes";

/// What tests may use besides; those of what is missing are left out.
#[derive(Default)]
pub(crate) struct Infrastructure {
    pub(crate) docker: Option<Docker>,
    /// Kubernetes, Airflow and Prefect, which take minutes to come.
    pub(crate) others: bool,
}

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
    let docker = infrastructure.docker.as_ref();
    let started = Instant::now();
    let mut test = with_binaries_and_tools()?;
    if !names_a_package(args) {
        test.arg("--workspace");
        if docker.is_none() {
            test.args(["--exclude", CONTAINERS]);
        }
        if !infrastructure.others {
            test.args(["--exclude", KUBERNETES, "--exclude", SCHEDULERS]);
        }
    }
    let named = |package: &str| !names_a_package(args) || args.iter().any(|arg| arg == package);
    let other = |package| infrastructure.others && named(package);
    let pods = other(SCHEDULERS) && takes_test(args, PODS);
    // They end when this returns, the last one first.
    let airflow = other(SCHEDULERS).then(Airflow::start).transpose()?;
    test.envs(airflow.iter().flat_map(Airflow::env));
    let prefect = other(SCHEDULERS).then(Prefect::start).transpose()?;
    test.envs(prefect.iter().flat_map(Prefect::env));
    let mut cluster = None;
    if let Some(docker) = docker {
        let on_cluster = other(KUBERNETES) || pods;
        if named(CONTAINERS) || on_cluster {
            test.env("AIR_IMAGES", images::build(docker)?)
                .env("AIR_DOCKER_COMPOSE", tools::docker_compose()?)
                .envs(docker.env());
        }
        if on_cluster {
            cluster = Some(Cluster::start(docker)?);
        }
    }
    test.envs(cluster.iter().flat_map(Cluster::env));
    let cluster_of_airflow = cluster.as_ref().filter(|_| pods);
    let airflow_on_pods = cluster_of_airflow.map(Airflow::start_on).transpose()?;
    test.envs(airflow_on_pods.iter().flat_map(Airflow::env));
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

fn names_a_package(args: &[String]) -> bool {
    let ours = args.iter().take_while(|arg| *arg != "--");
    ours.into_iter()
        .any(|arg| arg == "--package" || arg.starts_with("-p") || arg.starts_with("--package="))
}

/// Whether the tests of this name are among those that run: all are, where none is named.
fn takes_test(args: &[String], name: &str) -> bool {
    let ours: Vec<_> = args.iter().take_while(|arg| *arg != "--").collect();
    let mut named = ours.windows(2).filter(|two| two[0] == "--test").peekable();
    named.peek().is_none() || named.any(|two| two[1] == name)
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

    #[test]
    fn a_package_is_seen_only_before_the_dashes() {
        let args = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(names_a_package(&args("-p air-nats")));
        assert!(names_a_package(&args("--package=air-nats --lib")));
        assert!(!names_a_package(&args("--test tidy -- -p")));
    }

    #[test]
    fn tests_that_are_named_are_the_only_ones() {
        let takes = |line: &str| {
            let args: Vec<_> = line.split(' ').map(str::to_owned).collect();
            takes_test(&args, PODS)
        };
        assert!(takes("-p air-schedulers -- overhead"));
        assert!(takes("--test prefect --test airflow_kubernetes"));
        assert!(!takes(
            "--test airflow --test prefect -- --test airflow_kubernetes"
        ));
    }
}
