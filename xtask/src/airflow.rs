//! Airflow for the tests of its backend: two of our own below the target folder, started by the script of the provider. One runs its
//! tasks as processes, the other one as pods of the cluster that is ours too.

mod pods;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command;
use crate::error::{Error, Result};
use crate::kubernetes::{ADDRESS, Cluster};
use crate::{system, workspace};

/// A whole Airflow with Postgres, which ends when this is dropped.
pub(crate) struct Airflow {
    folder: PathBuf,
    /// By which tests find the folder.
    variable: &'static str,
}

impl Airflow {
    /// Starts one with LocalExecutor, after installing what is missing.
    pub(crate) fn start() -> Result<Self> {
        let venv = environment()?;
        let airflow = Self::named("conformance", "AIR_AIRFLOW")?;
        airflow.run(&venv, "127.0.0.1", "")?;
        Ok(airflow)
    }

    /// Starts one with KubernetesExecutor, whose workers are pods of a cluster.
    pub(crate) fn start_on(cluster: &Cluster) -> Result<Self> {
        let venv = environment()?;
        let airflow = Self::named("kubernetes", "AIR_AIRFLOW_KUBERNETES")?;
        let more = pods::prepare(cluster, &airflow.folder)?;
        airflow.run(&venv, ADDRESS, &more)?;
        pods::write_template(&airflow.folder, &venv)?;
        Ok(airflow)
    }

    fn named(name: &str, variable: &'static str) -> Result<Self> {
        let folder = workspace::target()?.join("airflow").join(name);
        std::fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
        Ok(Self { folder, variable })
    }

    /// Starts it at an address, with further lines of its environment.
    fn run(&self, venv: &Path, address: &str, more: &str) -> Result<()> {
        // Tokens so short-lived that each test needs several.
        let more = format!(
            "export AIR_TEST_FOLDER='{}' AIRFLOW__API_AUTH__JWT_EXPIRATION_TIME=20\n{more}",
            self.folder.display()
        );
        write(&self.folder.join("env.extra"), &more)?;
        println!("starting Airflow in {}", self.folder.display());
        let mut start = self.script("start");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders = vec![venv.join("bin")];
        folders.extend(std::env::split_paths(&path));
        start
            .env("PATH", std::env::join_paths(folders).unwrap_or(path))
            .env("AIRFLOW_VENV", venv)
            .env("AIRFLOW_HOST", address)
            .env("AIRFLOW_DAGS", dags())
            .env("AIRFLOW_PARALLELISM", "8");
        command::run(&mut start)
    }

    /// What the tests need in their environment to find it.
    pub(crate) fn env(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        std::iter::once((self.variable, &self.folder))
    }

    fn script(&self, verb: &str) -> Command {
        let mut script = script("airflow");
        script.arg(verb).arg(&self.folder);
        script
    }
}

impl Drop for Airflow {
    fn drop(&mut self) {
        if let Err(error) = command::run(&mut self.script("stop")) {
            eprintln!("Airflow may go on: {error}");
        }
    }
}

/// The virtual environment that both have.
fn environment() -> Result<PathBuf> {
    system::ensure("curl", "curl")?;
    let made = command::capture(&mut script("environment"))?;
    Ok(made.lines().last().unwrap_or_default().into())
}

fn dags() -> PathBuf {
    workspace::root().join("tests/schedulers/dags")
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).map_err(Error::file(file))
}

fn script(name: &str) -> Command {
    let mut script = Command::new(
        workspace::root()
            .join("integrations/airflow/scripts")
            .join(name),
    );
    // Of some other Airflow, or of Python's.
    for variable in ["AIRFLOW_HOME", "AIRFLOW_PORT", "PYTHONPATH", "NATS_URL"] {
        script.env_remove(variable);
    }
    script
}
