//! An installation whose managers run agents: the real Claude Code CLI, against a [`Standin`] of its service.

use std::path::PathBuf;
use std::process::Command;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::installation::Installation;
use crate::process::Program;
use crate::standin::Standin;

/// Tests of one binary that may run agents at once: each CLI takes 300 MB, and most of a second of CPU to start.
const AT_ONCE: usize = 2;

static PLACES: Semaphore = Semaphore::const_new(AT_ONCE);

/// The key of the tests. It must turn up nowhere but at the stand-in.
pub const KEY: &str = "sk-ant-test-4f1c8a7e22d94b0c";

/// An installation with agents.
pub struct Agents {
    /// The installation.
    pub air: Installation,
    /// The service.
    pub standin: Standin,
    /// Variables that managers get over those of [`Agents::env`].
    pub more: Vec<(&'static str, String)>,
    _place: SemaphorePermit<'static>,
}

/// The CLI: `AIR_CLAUDE`, or `claude` on the PATH.
pub fn claude() -> PathBuf {
    std::env::var_os("AIR_CLAUDE").map_or_else(|| "claude".into(), PathBuf::from)
}

/// Waits for a place among the tests that run agents at once.
pub async fn agents_place() -> SemaphorePermit<'static> {
    PLACES.acquire().await.expect("it is never closed")
}

impl Agents {
    /// An installation with this many managers, and a stand-in without scripts.
    pub async fn start(managers: usize) -> Self {
        let place = agents_place().await;
        let mut agents = Self {
            air: Installation::start(0).await,
            standin: Standin::start().await,
            more: Vec::new(),
            _place: place,
        };
        for _ in 0..managers {
            agents.add_manager(&[]);
        }
        agents
    }

    /// What a manager's environment tells runners about agents. The agent's shells are login shells: what is in the profile of
    /// whoever runs the tests must not matter.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        let home = self.air.server.folder().join("home");
        std::fs::create_dir_all(&home).expect("the server's folder can be written");
        let mut env = vec![
            ("HOME", home.display().to_string()),
            ("AIR_CLAUDE", claude().display().to_string()),
            ("ANTHROPIC_BASE_URL", self.standin.url().to_owned()),
            ("ANTHROPIC_API_KEY", KEY.to_owned()),
        ];
        env.extend(self.more.clone());
        env
    }

    /// The command that starts a manager.
    pub fn manager_command(&self, options: &[&str]) -> Command {
        let mut command = self.air.manager_command(options);
        command.envs(self.env());
        command
    }

    /// Starts one more manager, with further options of `airx manager`.
    pub fn add_manager(&mut self, options: &[&str]) -> &mut Program {
        let program = Program::start(&mut self.manager_command(options));
        self.air.managers.push(program);
        self.air
            .managers
            .last_mut()
            .expect("one was added just now")
    }
}
