//! The options that describe a task, shared by `airx submit` and `airx task add`.

use std::collections::BTreeMap;
use std::path::Path;

use air_protocol::claude::Claude;
use air_protocol::names::TaskId;
use air_protocol::task::{Need, Retry, Task, Work};
use air_protocol::time::{Span, Time};
use clap::Args;
use serde_json::Value;

use crate::Failure;
use crate::app::now;
use crate::tasks_file;

/// The options that describe a task, or the file that lists tasks.
#[derive(Debug, Clone, Default, Args)]
pub struct TaskArgs {
    /// Id of the task; the same id twice runs once [default: _ and its sequence in the stream]
    #[arg(long, conflicts_with = "file")]
    pub id: Option<TaskId>,
    /// Tasks that must have succeeded before: TASK or JOB/TASK, with commas between
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "A,B",
        conflicts_with = "file"
    )]
    pub needs: Vec<Need>,
    /// Time that the task may run, 0 for no limit [default: the job's, or 30m]
    #[arg(long, value_name = "TIME", conflicts_with = "file")]
    pub timeout: Option<Span>,
    /// Attempts after the first [default: the job's, or 3]
    #[arg(long, value_name = "N", conflicts_with = "file")]
    pub retries: Option<u32>,
    /// Input of the task, which finds it in the file $AIR_INPUT
    #[arg(long, value_name = "JSON|@FILE", conflicts_with = "file")]
    pub input: Option<String>,
    /// Environment variable of the task
    #[arg(long, value_name = "NAME=VALUE", conflicts_with = "file")]
    pub env: Vec<String>,
    /// Working directory of the task [default: a temporary folder of its own]
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    pub cwd: Option<String>,
    /// Run the task in the directory where this command is given
    #[arg(long, conflicts_with_all = ["cwd", "file"])]
    pub here: bool,
    /// Label of the task
    #[arg(long, value_name = "NAME=VALUE", conflicts_with = "file")]
    pub label: Vec<String>,
    /// Backend that must run the task
    #[arg(long, conflicts_with = "file")]
    pub backend: Option<String>,
    /// Container image of the task
    #[arg(long, conflicts_with = "file")]
    pub image: Option<String>,
    /// Earliest start: a time such as 2026-01-31T08:00:00Z, or a span from now such as 10m
    #[arg(long, value_name = "TIME", conflicts_with = "file")]
    pub not_before: Option<String>,
    /// Read tasks from a file (YAML, JSON or JSON lines), - for standard input
    #[arg(short, long, value_name = "FILE|-", conflicts_with_all = ["run", "claude", "command"], required_unless_present_any = ["run", "claude", "command"])]
    pub file: Option<String>,
    /// A line for /bin/sh
    #[arg(long, value_name = "LINE", conflicts_with_all = ["claude", "command"])]
    pub run: Option<String>,
    /// A prompt for the Claude Code CLI
    #[arg(long, value_name = "PROMPT", conflicts_with = "command")]
    pub claude: Option<String>,
    /// A program and its arguments, without a shell
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

impl TaskArgs {
    /// The tasks that the options describe, or those of the file.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn tasks(self) -> Result<Vec<Task>, Failure> {
        match &self.file {
            Some(file) => from_file(file),
            None => self.task().map(|task| vec![task]),
        }
    }

    fn task(self) -> Result<Task, Failure> {
        let work = match (self.run, self.claude) {
            (Some(line), _) => Work::Run(line),
            (None, Some(prompt)) => Work::Claude(Box::new(Claude::new(&prompt))),
            (None, None) => Work::Exec(self.command),
        };
        let mut task = Task::new(work);
        task.id = self.id;
        task.needs = self.needs;
        task.timeout = self.timeout;
        task.retry = self.retries.map(|max| Retry {
            max: Some(max),
            ..Retry::default()
        });
        task.input = self.input.as_deref().map(input).transpose()?;
        task.env = pairs("--env", &self.env)?;
        task.labels = pairs("--label", &self.label)?;
        task.cwd = if self.here { Some(here()?) } else { self.cwd };
        task.backend = self.backend;
        task.image = self.image;
        task.not_before = self.not_before.as_deref().map(moment).transpose()?;
        tasks_file::checked(task).map_err(Failure::Usage)
    }
}

fn from_file(file: &str) -> Result<Vec<Task>, Failure> {
    let text = read(file)?;
    let text = String::from_utf8(text).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        Failure::Usage(format!("{file}:{line}: it is no UTF-8"))
    })?;
    tasks_file::read(file, &text).map_err(|faults| {
        const SHOWN: usize = 20;
        let mut lines: Vec<_> = faults.iter().take(SHOWN).map(ToString::to_string).collect();
        if faults.len() > SHOWN {
            lines.push(format!("and {} more", faults.len() - SHOWN));
        }
        lines.push("nothing was submitted".to_owned());
        Failure::Usage(lines.join("\n"))
    })
}

fn read(file: &str) -> Result<Vec<u8>, Failure> {
    if file == "-" {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes)
            .map_err(Failure::io("read standard input"))?;
        return Ok(bytes);
    }
    std::fs::read(Path::new(file)).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::NotFound(format!("there is no file `{file}`")),
        _ => Failure::io(format!("read {file}"))(error),
    })
}

fn input(text: &str) -> Result<Value, Failure> {
    let (from, bytes) = match text.strip_prefix('@') {
        Some(file) => (file, read(file)?),
        None => ("--input", text.as_bytes().to_vec()),
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::Usage(format!("{from}: it is no JSON: {error}")))
}

fn here() -> Result<String, Failure> {
    let here = std::env::current_dir().map_err(Failure::io("find the current directory"))?;
    here.into_os_string()
        .into_string()
        .map_err(|path| Failure::Usage(format!("--here: {} is no UTF-8", path.to_string_lossy())))
}

/// `NAME=VALUE` pairs of an option.
///
/// # Errors
/// One that has no `=`.
pub fn pairs(option: &str, words: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |word: &String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Failure::Usage(format!("{option} {word}: write NAME=VALUE"))),
    };
    words.iter().map(pair).collect()
}

/// A time, or a span from now.
fn moment(text: &str) -> Result<Time, Failure> {
    if let Ok(span) = text.parse::<Span>() {
        return Ok(now().after(span.0));
    }
    text.parse().map_err(|error| {
        Failure::Usage(format!(
            "--not-before: {error}, or a span from now such as 10m"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_a_task() {
        let task = TaskArgs {
            run: Some("echo hi".into()),
            env: vec!["A=b=c".into()],
            retries: Some(0),
            input: Some("[1]".into()),
            not_before: Some("2026-01-31T08:00:00Z".into()),
            ..TaskArgs::default()
        };
        let task = &task.tasks().unwrap()[0];
        let text = r#"{"v":1,"run":"echo hi","input":[1],"env":{"A":"b=c"},"retry":{"max":0},"not_before":"2026-01-31T08:00:00.000Z"}"#;
        assert_eq!(serde_json::to_string(task).unwrap(), text);
    }

    #[test]
    fn wrong_options_are_told() {
        let error = |args: TaskArgs| args.tasks().unwrap_err().to_string();
        let run = Some("true".to_owned());
        assert!(
            error(TaskArgs {
                env: vec!["A".into()],
                run: run.clone(),
                ..TaskArgs::default()
            })
            .contains("NAME=VALUE")
        );
        assert!(
            error(TaskArgs {
                input: Some("{".into()),
                run: run.clone(),
                ..TaskArgs::default()
            })
            .contains("no JSON")
        );
        assert!(
            error(TaskArgs {
                not_before: Some("soon".into()),
                run,
                ..TaskArgs::default()
            })
            .contains("soon")
        );
        assert!(
            error(TaskArgs {
                command: vec!["a\0".into()],
                ..TaskArgs::default()
            })
            .contains("NUL")
        );
        assert!(
            error(TaskArgs {
                file: Some("/nowhere/t.yaml".into()),
                ..TaskArgs::default()
            })
            .contains("no file")
        );
    }
}
