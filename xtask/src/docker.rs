//! Docker for the tests of real containers: the daemon that answers, or one of our own below the target folder.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::command;
use crate::error::{Error, Result};
use crate::{system, workspace};

/// Time that a daemon gets to answer.
const START_MAX: Duration = Duration::from_secs(60);

/// Where a daemon answers; one that we started ends when this is dropped.
pub(crate) struct Docker {
    /// Value for `DOCKER_HOST`; none where the environment's own is right.
    host: Option<String>,
    daemon: Option<Child>,
}

impl Docker {
    /// Finds a daemon, or starts one, after installing it where it is missing.
    pub(crate) fn start() -> Result<Self> {
        if answers(None) {
            return Ok(Self {
                host: None,
                daemon: None,
            });
        }
        for program in ["dockerd", "docker"] {
            system::ensure(program, "docker.io")?;
        }
        let folder = workspace::target()?.join("docker");
        std::fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
        let host = format!("unix://{}", folder.join("socket").display());
        let daemon = launch(&folder, &host)?;
        let mut docker = Self {
            host: Some(host),
            daemon: Some(daemon),
        };
        docker.wait(&folder.join("log"))?;
        Ok(docker)
    }

    /// The command line of Docker, for this daemon.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(args).envs(self.env());
        command
    }

    /// What a program needs in its environment to find this daemon.
    pub(crate) fn env(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.host.iter().map(|host| ("DOCKER_HOST", host.as_str()))
    }

    fn wait(&mut self, log: &Path) -> Result<()> {
        let started = Instant::now();
        while !answers(self.host.as_deref()) {
            let ended = self
                .daemon
                .as_mut()
                .is_some_and(|daemon| !matches!(daemon.try_wait(), Ok(None)));
            if ended || started.elapsed() > START_MAX {
                return Err(Error::Answer {
                    command: "dockerd".into(),
                    what: format!("none; its log is {}", log.display()),
                });
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        // By SIGTERM, so that it ends its own containerd and unmounts what it mounted.
        let pid = daemon.id().to_string();
        let asked = Command::new("kill").arg(pid).status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ = daemon.kill();
        }
        let _ = daemon.wait();
    }
}

fn launch(folder: &Path, host: &str) -> Result<Child> {
    let log = folder.join("log");
    let file = std::fs::File::create(&log).map_err(Error::file(&log))?;
    let copy = file.try_clone().map_err(Error::file(&log))?;
    let mut dockerd = Command::new("dockerd");
    dockerd
        .args(["--host", host, "--data-root"])
        .arg(folder.join("data"))
        .arg("--exec-root")
        .arg(folder.join("exec"))
        .arg("--pidfile")
        .arg(folder.join("pid"))
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(copy);
    dockerd.spawn().map_err(|cause| Error::Start {
        command: "dockerd".into(),
        cause,
    })
}

fn answers(host: Option<&str>) -> bool {
    let mut docker = Command::new("docker");
    docker
        .arg("info")
        .envs(host.map(|host| ("DOCKER_HOST", host)));
    command::capture(&mut docker).is_ok()
}
