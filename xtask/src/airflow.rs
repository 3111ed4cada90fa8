//! Airflow for the tests of its backend: one of our own below the target folder, started by the script of the provider.

use std::path::PathBuf;
use std::process::Command;

use crate::command;
use crate::error::{Error, Result};
use crate::{system, workspace};

/// A whole Airflow with Postgres, which ends when this is dropped.
pub(crate) struct Airflow {
    folder: PathBuf,
}

impl Airflow {
    /// Starts one, after installing what is missing.
    pub(crate) fn start() -> Result<Self> {
        system::ensure("curl", "curl")?;
        let made = command::capture(&mut script("environment"))?;
        let venv = made.lines().last().unwrap_or_default().to_owned();
        let folder = workspace::target()?.join("airflow/conformance");
        std::fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
        // Tokens so short-lived that each test needs several.
        let more = format!(
            "export AIR_TEST_FOLDER='{}' AIRFLOW__API_AUTH__JWT_EXPIRATION_TIME=20\n",
            folder.display()
        );
        let file = folder.join("env.extra");
        std::fs::write(&file, more).map_err(Error::file(&file))?;
        println!("starting Airflow in {}", folder.display());
        let airflow = Self { folder };
        let mut start = airflow.script("start");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders = vec![PathBuf::from(&venv).join("bin")];
        folders.extend(std::env::split_paths(&path));
        start
            .env("PATH", std::env::join_paths(folders).unwrap_or(path))
            .env("AIRFLOW_VENV", &venv)
            .env(
                "AIRFLOW_DAGS",
                workspace::root().join("tests/schedulers/dags"),
            )
            .env("AIRFLOW_PARALLELISM", "8");
        command::run(&mut start)?;
        Ok(airflow)
    }

    /// What the tests need in their environment to find it.
    pub(crate) fn env(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        std::iter::once(("AIR_AIRFLOW", &self.folder))
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
