//! Everything that reads bytes of others, as functions of arbitrary bytes.
//!
//! A target hands an input to one reader of the product and asserts what must hold whatever the input
//! is: it does not panic, an error is one short line, what was read is written and read again as the
//! same value, and memory stays within a multiple of the input. Where to start: [`TARGETS`].
//!
//! Two callers share the targets: `tests/bounded.rs`, an ordinary test that replays the corpus with a
//! few mutations, and the program `air-fuzz`, which libFuzzer drives (`cargo xtask fuzz`). Nothing
//! here talks to NATS, or starts a program.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a target tells a fault by panicking"
)]

pub mod corpus;
mod files;
mod machine;
pub mod memory;
mod messages;
pub mod mutate;
mod replies;
mod subtasks;
mod truths;
mod words;

use memory::Allowance;

/// A reader, with what it may use.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder in the corpus.
    pub name: &'static str,
    /// Hands it an input; panics at a fault.
    reads: fn(&[u8]),
    /// The memory that it may use.
    allowance: Allowance,
}

/// Every reader, from the innermost to the outermost.
pub const TARGETS: &[Target] = &[
    target("names", words::names, Allowance::TEXT),
    target("times", words::times, Allowance::TEXT),
    target("task-json", messages::task_json, Allowance::VALUE),
    target("task-msgpack", messages::task_msgpack, Allowance::VALUE),
    target("record-json", messages::record_json, Allowance::VALUE),
    target("record-msgpack", messages::record_msgpack, Allowance::VALUE),
    target("spec", messages::spec, Allowance::VALUE),
    target("state", messages::state, Allowance::VALUE),
    target("event", messages::event, Allowance::VALUE),
    target("heartbeat", replies::heartbeat, Allowance::VALUE),
    target("stored", replies::stored, Allowance::VALUE),
    target("machine", machine::states, Allowance::VALUE),
    target("ledger", machine::records, Allowance::VALUE),
    target("air-tasks", subtasks::air_tasks, Allowance::VALUE),
    target("air-tasks-page", subtasks::page, Allowance::VALUE),
    target("air-output", files::air_output, Allowance::VALUE),
    target("air-retry-at", files::air_retry_at, Allowance::TEXT),
    target("environment", words::environment, Allowance::VALUE),
    target("tasks-yaml", files::tasks_yaml, Allowance::ALIASES),
    target("tasks-json", files::tasks_json, Allowance::VALUE),
    target("tasks-lines", files::tasks_lines, Allowance::VALUE),
    target("yaml", files::yaml, Allowance::ALIASES),
];

const fn target(name: &'static str, reads: fn(&[u8]), allowance: Allowance) -> Target {
    Target {
        name,
        reads,
        allowance,
    }
}

impl Target {
    /// The target of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Hands it an input.
    ///
    /// # Panics
    /// At a fault.
    pub fn check(&self, input: &[u8]) {
        memory::within(self.allowance, input.len(), || (self.reads)(input));
    }
}
