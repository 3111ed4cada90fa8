//! `cargo xtask demo`: the whole system on this machine, in release mode, in one command.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::error::{Error, Result};
use crate::{command, tools, workspace};

/// Builds the two binaries and becomes `airx dev` with its state in `path`. Needs `nats-server`, not the `nats` CLI.
///
/// # Errors
/// When the build fails, no server can be had, or `airx` cannot be started; otherwise this does not return.
pub(crate) fn run(path: Option<PathBuf>) -> Result<()> {
    let server = tools::nats_server()?;
    command::run(&mut command::cargo(
        "build --release --package airx --package air-runner",
    ))?;
    let target = workspace::target()?;
    let airx = target.join("release").join("airx");
    let state = path.unwrap_or_else(|| target.join("demo"));
    let cause = Command::new(airx)
        .arg("dev")
        .arg("--dir")
        .arg(state)
        .env("AIR_NATS_SERVER", server)
        .exec();
    Err(Error::Start {
        command: "airx dev".into(),
        cause,
    })
}
