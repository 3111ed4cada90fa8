//! The images as `cargo xtask images` builds them, on a real Docker: what they hold, what happens when their
//! containers are killed, `compose.yaml` as its first lines say, and the Docker backend.
//!
//! `cargo xtask test --all` builds the images and finds Docker before.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

mod backend;
mod compose;
mod images;

use std::process::Command;

/// The command line of Docker.
fn docker(args: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.args(args);
    command
}
