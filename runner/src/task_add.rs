//! `airx task add`: queues a sub-task from within a task, by a line in the file `AIR_TASKS`.
//!
//! The sub-task exists once the task that queued it succeeds, and never otherwise. Knows nothing of NATS.

mod arguments;

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use air_protocol::codec;
use air_protocol::spec::Wire;
use air_protocol::task::Task;

use crate::subtasks::subtask_of;
pub use arguments::{Arguments, parse};

/// How to call it.
pub const USAGE: &str = "\
Usage: airx task add [OPTIONS] (-- CMD ARGS... | --run LINE | -f FILE|-)

Queues a sub-task: it is committed together with the running task, if that succeeds.

  -- CMD ARGS...      program and arguments, without a shell
  --run LINE          a line for the shell
  -f, --file FILE     tasks from a file, or - for standard input: one in JSON on each line
  --id ID             name of the sub-task; a fresh one when absent
  --job JOB           another job, which runs beside this one
  --needs A,B         tasks that must succeed first: `task` or `job/task`
  --timeout T         time that it may run, such as 90s or 1h30m; 0 for no limit
  --retries N         attempts after the first
  --env K=V           an environment variable; may be repeated
  --input JSON|@FILE  handed to the sub-task in the file AIR_INPUT
  --cwd DIR           working folder
  --label K=V         a label; may be repeated
  --not-before T      earliest start, such as 2026-01-31T08:00:00Z
  -h, --help          this text
";

/// A sub-task was not queued.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The call is wrong.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// `AIR_TASKS` cannot be written.
    #[error("failed to write AIR_TASKS ({})", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

impl AddError {
    /// 2 when the call is to be mended, 1 when the system would not.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Read { .. } | Self::Write { .. } => 1,
        }
    }
}

fn usage(text: impl Into<String>) -> AddError {
    AddError::Usage(text.into())
}

/// `airx task …`, from the arguments behind `task`; gives the exit code.
pub fn main(arguments: &[OsString]) -> u8 {
    let tasks = std::env::var_os("AIR_TASKS");
    match run(arguments, tasks.as_deref()) {
        Ok(Some(help)) => {
            print!("{help}");
            0
        }
        Ok(None) => 0,
        Err(error) => {
            let source = std::error::Error::source(&error);
            let source = source.map_or_else(String::new, |source| format!(": {source}"));
            eprintln!("airx task add: {error}{source}");
            error.exit_code()
        }
    }
}

/// Queues what `arguments` say in the file `tasks`; gives the help if that was asked for.
///
/// # Errors
/// The call is wrong, or a file cannot be read or written; then nothing was queued.
pub fn run(
    arguments: &[OsString],
    tasks: Option<&OsStr>,
) -> Result<Option<&'static str>, AddError> {
    let words: Option<Vec<_>> = arguments.iter().map(|word| word.to_str()).collect();
    let words = words.ok_or_else(|| {
        usage("an argument is no UTF-8, which JSON cannot hold; encode it, or use a file")
    })?;
    let rest = match words.split_first() {
        Some((&"add", rest)) => rest,
        Some((&("-h" | "--help" | "help"), _)) => return Ok(Some(USAGE)),
        Some((other, _)) => {
            return Err(usage(format!(
                "`airx task {other}` does not exist; use `airx task add`"
            )));
        }
        None => return Err(usage("say `airx task add`; more by `airx task --help`")),
    };
    let added = match parse(rest)? {
        Arguments::Help => return Ok(Some(USAGE)),
        Arguments::Task(fields) => {
            vec![subtask_of(serde_json::Value::Object(fields)).map_err(usage)?]
        }
        Arguments::File(name) => from_file(&name)?,
    };
    let tasks = tasks.filter(|path| !path.is_empty()).ok_or_else(|| {
        usage("AIR_TASKS is not set; `airx task add` works within a task, `airx submit` elsewhere")
    })?;
    append(Path::new(tasks), &added)?;
    Ok(None)
}

/// Reads tasks from a file, one in JSON on each line.
fn from_file(name: &str) -> Result<Vec<Task>, AddError> {
    let failed = |source| AddError::Read {
        path: name.into(),
        source,
    };
    let text = match name {
        "-" => io::read_to_string(io::stdin()).map_err(failed)?,
        _ => std::fs::read_to_string(name).map_err(failed)?,
    };
    let lines = (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            let value = serde_json::from_str(line).map_err(|error| {
                usage(format!(
                    "{name}, line {number}: no JSON (column {}); write one task on each line",
                    error.column()
                ))
            })?;
            subtask_of(value).map_err(|text| usage(format!("{name}, line {number}: {text}")))
        })
        .collect()
}

/// Appends tasks to the file `path`, all or nothing, whoever else does the same.
///
/// # Errors
/// [`AddError::Write`].
pub fn append(path: &Path, tasks: &[Task]) -> Result<(), AddError> {
    append_lines(path, tasks).map_err(|source| AddError::Write {
        path: path.to_owned(),
        source,
    })
}

fn append_lines(path: &Path, tasks: &[Task]) -> io::Result<()> {
    let mut text = Vec::new();
    for task in tasks {
        text.extend(codec::encode(Wire::Json, task));
        text.push(b'\n');
    }
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)?;
    file.lock()?;
    // What somebody else left without an end must not swallow our first line.
    let end = file.seek(SeekFrom::End(0))?;
    if end > 0 {
        let mut last = [0];
        file.seek(SeekFrom::Start(end - 1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            text.insert(0, b'\n');
        }
    }
    let written = file.write_all(&text);
    if written.is_err() {
        file.set_len(end)?;
    }
    written
}

#[cfg(test)]
mod tests;
