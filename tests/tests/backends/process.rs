//! The process backend.

use std::process::Command;

use air_tests::conformance::{Alone, Ground, Stand, Started, is_process_left};
use air_tests::ok;
use uuid::Uuid;

pub(crate) struct Processes;

impl Stand for Processes {
    /// The program of runners is reached through the door.
    fn backend(&self, _: &Ground) -> String {
        "[[backend]]\nname = \"tested\"\nkind = \"process\"".to_owned()
    }

    fn is_left(&self, runner: Uuid) -> bool {
        let folder = std::env::temp_dir().join(format!("air-{runner}"));
        folder.exists() || is_process_left(runner)
    }

    fn is_elsewhere(&self) -> bool {
        false
    }
}

impl Alone for Processes {
    fn name(&self) -> &'static str {
        "sh"
    }

    async fn alone(&self, _: &Ground, started: &Started) {
        ok(Command::new("sh").args(["-c", &started.line()]));
    }
}

air_tests::conformance!(Processes);
