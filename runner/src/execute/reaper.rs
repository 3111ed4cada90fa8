//! Waits for every child: the program itself, and the orphans that fall to the subreaper.
//!
//! Nothing else in the process may wait for children, tokio's `process` least of all.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// How the main process ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Main {
    Exited(i32),
    Signalled(i32),
}

/// The first of the real-time signals, for which `nix` has no names.
const REAL_TIME_SIGNAL: i32 = 34;

/// Collects ended children.
pub(super) struct Reaper {
    child: Child,
    main: Option<Main>,
}

impl Reaper {
    pub(super) fn new(child: Child) -> Self {
        Self { child, main: None }
    }

    /// Process id of the program, and id of its process group.
    pub(super) fn main_pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// How the program ended, if it has been collected.
    pub(super) fn main(&self) -> Option<Main> {
        self.main
    }

    /// Collects all that has ended. True as long as a child, hence any descendant, is left.
    ///
    /// This is exact, without a look into `/proc`: an orphan becomes the subreaper's child in
    /// the same moment in which its parent ends.
    pub(super) fn reap(&mut self) -> bool {
        loop {
            self.reap_main();
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => return true,
                // Ended since the look at it just above.
                Ok(WaitStatus::Exited(pid, code)) if pid == self.main_pid() => {
                    self.main.get_or_insert(Main::Exited(code));
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.main_pid() => {
                    self.main.get_or_insert(Main::Signalled(signal as i32));
                }
                Ok(_) => {}
                Err(Errno::ECHILD) => {
                    // Whatever became of it, a main process that is no child has ended.
                    self.main.get_or_insert(Main::Signalled(REAL_TIME_SIGNAL));
                    return false;
                }
                // `nix` collected a child that a real-time signal ended, and lost its status.
                Err(Errno::EINVAL | Errno::EINTR) => {}
                Err(_) => return true,
            }
        }
    }

    /// Collects the main process by its id first: std keeps the number of every signal.
    fn reap_main(&mut self) {
        if self.main.is_some() {
            return;
        }
        match self.child.try_wait() {
            Ok(Some(status)) => self.main = Some(main_of(status)),
            Ok(None) => {}
            Err(_) => self.main = Some(Main::Signalled(REAL_TIME_SIGNAL)),
        }
    }
}

fn main_of(status: ExitStatus) -> Main {
    match (status.code(), status.signal()) {
        (Some(code), _) => Main::Exited(code),
        (None, Some(number)) => Main::Signalled(number),
        (None, None) => Main::Signalled(REAL_TIME_SIGNAL),
    }
}
