//! Programs that a test starts, and ends by their process id.

use std::io::{Seek as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
}

impl Program {
    /// Starts a program whose output goes where the test's goes.
    pub fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).spawn();
        Self {
            child: child.unwrap_or_else(|error| panic!("failed to start {command:?}: {error}")),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).expect("the program was started here and is not waited for yet");
    }

    /// Kills it, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a command to its end; gives what it printed, or all of it where it failed.
///
/// # Errors
/// The command failed.
pub fn try_output(command: &mut Command) -> Result<String, Output> {
    let output = command.output().unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(output)
    }
}

/// Runs a command that must succeed; gives what it printed.
#[track_caller]
pub fn ok(command: &mut Command) -> String {
    try_output(command).unwrap_or_else(|output| {
        let said = String::from_utf8_lossy(&output.stderr);
        panic!("{command:?}: {said}")
    })
}

/// The same, of a command that reads this.
#[track_caller]
pub fn ok_with(command: &mut Command, input: &str) -> String {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(input.as_bytes()).unwrap();
    file.rewind().unwrap();
    ok(command.stdin(file))
}

/// The ids of all processes that this one can see.
pub fn pids() -> impl Iterator<Item = u32> {
    let folders = std::fs::read_dir("/proc").unwrap().flatten();
    folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok())
}

/// What a variable of the environment asks for, where it is set.
///
/// # Panics
/// It holds no number.
pub fn number_of(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// A binary of this workspace, which `cargo xtask test` has built.
pub fn binary(name: &str) -> PathBuf {
    let folder = match std::env::var_os("AIR_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let mut folder = std::env::current_exe().unwrap();
            folder.pop();
            folder.pop();
            folder
        }
    };
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is missing; run the tests by `cargo xtask test`, which builds it",
        path.display()
    );
    path
}
