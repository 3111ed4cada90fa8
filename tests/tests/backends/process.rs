//! The process backend.

use air_tests::conformance::{Ground, Stand, is_process_left};
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

air_tests::conformance!(Processes);
