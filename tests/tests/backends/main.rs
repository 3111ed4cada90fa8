//! The process backend stands the conformance suite; containers do in `tests/containers`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

use std::path::PathBuf;

use air_tests::conformance::{Ground, Stand};
use air_tests::{binary, pids, runners};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use uuid::Uuid;

struct Processes;

impl Stand for Processes {
    /// The program of runners is reached through the door.
    fn backend(&self, _: &Ground) -> String {
        "[[backend]]\nname = \"tested\"\nkind = \"process\"".to_owned()
    }

    fn runner(&self) -> PathBuf {
        binary("air-runner")
    }

    fn door(&self) -> PathBuf {
        binary("air-runner")
    }

    fn murder(&self, runner: Uuid) {
        let all = runners();
        let (pid, _) = all.iter().find(|(_, run)| *run == runner).unwrap();
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
    }

    fn is_left(&self, runner: Uuid) -> bool {
        let mark = format!("AIR_RUNNER={runner}");
        pids().any(|pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|one| one == mark.as_bytes())
        })
    }

    fn has_images(&self) -> bool {
        false
    }
}

air_tests::conformance!(Processes);
