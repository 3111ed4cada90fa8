//! Prefect for the tests of its backend: one of our own below the target folder, started by the script of its package.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use crate::error::{Error, Result};
use crate::{system, workspace};

/// A whole Prefect with a work pool of processes and a worker, which ends when this is dropped.
pub(crate) struct Prefect {
    child: Child,
    /// Address of its API.
    api: String,
}

impl Prefect {
    /// Starts one, after installing what is missing.
    pub(crate) fn start() -> Result<Self> {
        system::ensure("curl", "curl")?;
        let script = workspace::root().join("integrations/prefect/scripts/stand");
        let folder = workspace::target()?.join("prefect");
        let command = script.display().to_string();
        println!("starting Prefect in {}", folder.display());
        let started = Command::new(script)
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = started.map_err(|cause| Error::Start {
            command: command.clone(),
            cause,
        })?;
        let mut api = String::new();
        if let Some(stdout) = child.stdout.take() {
            // An end by error is an end: the empty line tells.
            let _ = BufReader::new(stdout).read_line(&mut api);
        }
        let api = api.trim().to_owned();
        let prefect = Self { child, api };
        if prefect.api.is_empty() {
            return Err(Error::Answer {
                command,
                what: "no address of Prefect".into(),
            });
        }
        Ok(prefect)
    }

    /// What the tests need in their environment to find it.
    pub(crate) fn env(&self) -> impl Iterator<Item = (&'static str, &String)> {
        std::iter::once(("AIR_PREFECT_API", &self.api))
    }
}

impl Drop for Prefect {
    fn drop(&mut self) {
        // By SIGTERM, so that it ends all that it has started.
        let asked = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
