//! The infrastructure of tests: which of it the chosen ones need, and how it starts and ends with them.

use std::process::Command;

use crate::airflow::Airflow;
use crate::docker::Docker;
use crate::error::Result;
use crate::kubernetes::Cluster;
use crate::prefect::Prefect;
use crate::{images, tools};

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

impl Infrastructure {
    /// The whole workspace, where `args` (of `cargo test`) name no package of it.
    pub(super) fn packages(&self, args: &[String]) -> Vec<&'static str> {
        if names_a_package(args) {
            return Vec::new();
        }
        let mut packages = vec!["--workspace"];
        if self.docker.is_none() {
            packages.extend(["--exclude", CONTAINERS]);
        }
        if !self.others {
            packages.extend(["--exclude", KUBERNETES, "--exclude", SCHEDULERS]);
        }
        packages
    }

    /// Starts what the tests need that `args` choose, and tells them where it is.
    pub(super) fn start(&self, args: &[String], test: &mut Command) -> Result<Running> {
        let needs = Needs::of(self.docker.is_some(), self.others, args);
        let mut running = Running::default();
        if needs.schedulers {
            running.airflow = Some(Airflow::start()?);
            running.prefect = Some(Prefect::start()?);
        }
        if let Some(docker) = self.docker.as_ref().filter(|_| needs.images) {
            test.env("AIR_IMAGES", images::build(docker)?)
                .env("AIR_DOCKER_COMPOSE", tools::docker_compose()?)
                .envs(docker.env());
            if needs.chart {
                test.env("AIR_HELM", tools::helm()?);
            }
            if needs.cluster {
                running.cluster = Some(Cluster::start(docker)?);
            }
        }
        let pods = running.cluster.as_ref().filter(|_| needs.pods);
        running.airflow_on_pods = pods.map(Airflow::start_on).transpose()?;
        test.envs(running.airflow.iter().flat_map(Airflow::env))
            .envs(running.airflow_on_pods.iter().flat_map(Airflow::env))
            .envs(running.prefect.iter().flat_map(Prefect::env))
            .envs(running.cluster.iter().flat_map(Cluster::env));
        Ok(running)
    }
}

/// What was started for tests. It ends with this, what was started last first.
#[derive(Default)]
pub(super) struct Running {
    airflow_on_pods: Option<Airflow>,
    cluster: Option<Cluster>,
    prefect: Option<Prefect>,
    airflow: Option<Airflow>,
}

/// What the chosen tests need.
#[derive(Debug, PartialEq, Eq)]
struct Needs {
    images: bool,
    cluster: bool,
    /// What installs the chart of managers.
    chart: bool,
    schedulers: bool,
    /// An Airflow whose tasks are pods.
    pods: bool,
}

impl Needs {
    fn of(docker: bool, others: bool, args: &[String]) -> Self {
        let named = |package: &str| !names_a_package(args) || args.iter().any(|arg| arg == package);
        let schedulers = others && named(SCHEDULERS);
        let pods = docker && schedulers && takes_test(args, PODS);
        let chart = docker && others && named(KUBERNETES);
        let cluster = chart || pods;
        Self {
            images: docker && (cluster || named(CONTAINERS)),
            cluster,
            chart,
            schedulers,
            pods,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_package_is_seen_only_before_the_dashes() {
        assert!(names_a_package(&args("-p air-nats")));
        assert!(names_a_package(&args("--package=air-nats --lib")));
        assert!(!names_a_package(&args("--test tidy -- -p")));
    }

    #[test]
    fn tests_that_are_named_are_the_only_ones() {
        assert!(takes_test(&args("-p air-schedulers -- overhead"), PODS));
        assert!(takes_test(
            &args("--test prefect --test airflow_kubernetes"),
            PODS
        ));
        let others = "--test airflow --test prefect -- --test airflow_kubernetes";
        assert!(!takes_test(&args(others), PODS));
    }

    #[test]
    fn what_nobody_needs_is_not_started() {
        let needs = |others, line| Needs::of(true, others, &args(line));
        let all = Needs {
            images: true,
            cluster: true,
            chart: true,
            schedulers: true,
            pods: true,
        };
        assert_eq!(needs(true, "--no-fail-fast"), all);
        let only_images = Needs {
            images: true,
            cluster: false,
            chart: false,
            schedulers: false,
            pods: false,
        };
        assert_eq!(needs(false, "--no-fail-fast"), only_images);
        assert_eq!(needs(true, "-p air-containers"), only_images);
        let pods = needs(true, "-p air-schedulers --test airflow");
        assert!(pods.schedulers && !pods.cluster && !pods.images);
        let none = Needs::of(false, false, &args("--no-fail-fast"));
        assert!(!none.images && !none.cluster);
    }
}
