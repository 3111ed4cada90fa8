//! All that a task knows of Air-Executor: some variables, and the files that they name.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Write as _};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A sub-task, as a line of `AIR_TASKS` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Task {
    /// Known beforehand, so that other tasks can need it.
    pub(crate) id: String,
    /// Another job than the parent's: that is how work runs in parallel.
    pub(crate) job: String,
    /// The program and its arguments.
    pub(crate) exec: Vec<String>,
    /// The folder in which it runs.
    pub(crate) cwd: String,
    /// What it finds in `AIR_INPUT`.
    pub(crate) input: serde_json::Value,
    /// Tasks that must have succeeded before: `job/task`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) needs: Vec<String>,
    /// What people find it by.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
    /// Variables of its environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) env: BTreeMap<String, String>,
}

/// What `AIR_NEEDS` says of one needed task.
#[derive(Debug, Deserialize)]
struct Needed<T> {
    output: Option<T>,
}

/// A variable of the environment.
///
/// # Errors
/// It is not set.
pub(crate) fn variable(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|_| format!("{name} is not set; this program runs as a task"))
}

/// What the task was queued with.
///
/// # Errors
/// It is not what this kind of task takes.
pub(crate) fn input<T: DeserializeOwned>() -> Result<T, String> {
    read("AIR_INPUT")
}

/// The outputs of the tasks that this one needs.
///
/// # Errors
/// One of them is not what this task takes.
pub(crate) fn needs<T: DeserializeOwned>() -> Result<Vec<T>, String> {
    let all: BTreeMap<String, Needed<T>> = read("AIR_NEEDS")?;
    let output = |(name, needed): (String, Needed<T>)| {
        needed
            .output
            .ok_or_else(|| format!("{name} has left no output"))
    };
    all.into_iter().map(output).collect()
}

/// Queues sub-tasks, which exist once this task has succeeded.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn queue(tasks: &[Task]) -> Result<(), String> {
    let mut lines = Vec::new();
    for task in tasks {
        serde_json::to_writer(&mut lines, task).map_err(|error| error.to_string())?;
        lines.push(b'\n');
    }
    let path = variable("AIR_TASKS")?;
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.and_then(|mut file| file.write_all(&lines))
        .map_err(|error| format!("failed to write AIR_TASKS: {error}"))
}

/// Leaves the result.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn output<T: Serialize>(value: &T) -> Result<(), String> {
    let json = serde_json::to_vec(value).map_err(|error| error.to_string())?;
    std::fs::write(variable("AIR_OUTPUT")?, json)
        .map_err(|error| format!("failed to write AIR_OUTPUT: {error}"))
}

fn read<T: DeserializeOwned>(name: &str) -> Result<T, String> {
    let file = File::open(variable(name)?).map_err(|error| format!("{name}: {error}"))?;
    serde_json::from_reader(BufReader::new(file)).map_err(|error| format!("{name}: {error}"))
}
