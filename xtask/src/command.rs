//! Starts other programs and says plainly what failed. Knows nothing about which programs.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader};
use std::process::{Command, ExitStatus, Stdio};

use crate::error::{Error, Result};
use crate::workspace;

/// A `cargo` call in the workspace's root, by the same cargo that started us; `line` is split at white space.
///
/// What cargo set for *this* program is taken out of the environment: build scripts that look at it (ring's does)
/// would otherwise run again each time `cargo build` and `cargo xtask` take turns.
pub(crate) fn cargo(line: &str) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = in_root(&cargo);
    command.args(line.split_whitespace());
    command
}

/// A program that calls cargo itself, in the workspace's root and without what cargo set for *this* program.
pub(crate) fn in_root(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace::root());
    for name in std::env::vars_os()
        .map(|(name, _)| name)
        .filter(set_by_cargo_run)
    {
        command.env_remove(name);
    }
    command
}

fn set_by_cargo_run(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
}

/// Runs a program with our own stdout and stderr; anything but exit 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command.stdin(Stdio::null()).status();
    let status = status.map_err(not_started(command))?;
    succeeded(shown, status, String::new())
}

/// Runs a program silently and returns what it wrote to stdout; its stderr becomes part of the error.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(not_started(command))?;
    succeeded(shown, output.status, last_lines(&output.stderr))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program and hands each line of its stdout to `look` as it comes; its stderr is ours.
pub(crate) fn each_line(command: &mut Command, mut look: impl FnMut(&str)) -> Result<()> {
    let shown = show(command);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(not_started(command))?;
    if let Some(stdout) = child.stdout.take() {
        // An end by error is an end: the exit status decides.
        for line in BufReader::new(stdout)
            .split(b'\n')
            .map_while(io::Result::ok)
        {
            look(&String::from_utf8_lossy(&line));
        }
    }
    let status = child.wait().map_err(not_started(command))?;
    succeeded(shown, status, String::new())
}

fn not_started(command: &Command) -> impl FnOnce(io::Error) -> Error + use<> {
    let command = name(command);
    move |cause| Error::Start { command, cause }
}

fn succeeded(command: String, status: ExitStatus, output: String) -> Result<()> {
    if status.success() {
        Ok(())
    } else {
        Err(Error::Failed {
            command,
            status: status.to_string(),
            output,
        })
    }
}

/// The command as a person would type it.
fn show(command: &Command) -> String {
    let args = command
        .get_args()
        .map(|word| word.to_string_lossy().into_owned());
    std::iter::once(name(command))
        .chain(args)
        .collect::<Vec<_>>()
        .join(" ")
}

/// The program without its folder.
fn name(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    program
        .file_name()
        .unwrap_or(program.as_os_str())
        .to_string_lossy()
        .into_owned()
}

/// The end of a program's complaint; the start of a build log helps nobody.
fn last_lines(stderr: &[u8]) -> String {
    const LINES_MAX: usize = 6;
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(LINES_MAX)..].join("\n    ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_its_last_words() {
        let error = capture(Command::new("/bin/sh").args(["-c", "echo no room >&2; exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("`sh -c"), "{error}");
        assert!(
            error.contains("exit status: 3") && error.ends_with("no room"),
            "{error}"
        );
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        let error = run(&mut Command::new("/no/such/program"))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("cannot start `program`"), "{error}");
    }

    #[test]
    fn every_line_is_handed_on() {
        let mut seen = Vec::new();
        each_line(
            Command::new("/bin/sh").args(["-c", "echo one; echo two"]),
            |line| seen.push(line.to_owned()),
        )
        .unwrap();
        assert_eq!(seen, ["one", "two"]);
    }
}
