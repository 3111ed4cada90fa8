//! One line for each attempt, as RFC 4180 has it.

use air_protocol::record::Record;
use air_protocol::time::Time;

use super::{Export, Task};

const HEADS: [&str; 20] = [
    "job",
    "task",
    "attempt",
    "status",
    "exit",
    "signal",
    "error",
    "queued",
    "claimed",
    "started",
    "ended",
    "waited_ms",
    "ran_ms",
    "cpu_ms",
    "max_rss_kb",
    "subtasks",
    "host",
    "backend",
    "labels",
    "work",
];

/// The export as comma-separated values.
pub(super) fn text(export: &Export) -> String {
    let mut text = line(HEADS.map(str::to_owned));
    for task in &export.tasks {
        if task.attempts.is_empty() {
            text.push_str(&line(waiting(export, task)));
        }
        for record in &task.attempts {
            text.push_str(&line(attempt(export, task, record)));
        }
    }
    text
}

fn waiting(export: &Export, task: &Task) -> [String; 20] {
    let mut cells = HEADS.map(|_| String::new());
    cells[0] = export.job.to_string();
    cells[1] = task.view.task.to_string();
    cells[2] = task.view.attempt.to_string();
    cells[3] = task.view.status.to_owned();
    cells[6] = task.view.error.clone().unwrap_or_default();
    cells[7] = or_empty(task.view.queued.as_ref());
    (cells[18], cells[19]) = (labels(task), task.view.work.clone());
    cells
}

fn attempt(export: &Export, task: &Task, record: &Record) -> [String; 20] {
    let between = |from: Option<Time>, to: Option<Time>| {
        from.zip(to).map(|(from, to)| to.since(from).as_millis())
    };
    [
        export.job.to_string(),
        record.task.to_string(),
        record.attempt.to_string(),
        record.status.as_str().to_owned(),
        or_empty(record.exit.as_ref()),
        or_empty(record.signal.as_ref()),
        record.error.clone().unwrap_or_default(),
        or_empty(record.queued.as_ref()),
        or_empty(record.claimed.as_ref()),
        or_empty(record.started.as_ref()),
        record.ended.to_string(),
        or_empty(between(record.queued, record.started).as_ref()),
        or_empty(between(record.started, Some(record.ended)).as_ref()),
        or_empty(record.cpu_ms.as_ref()),
        or_empty(record.max_rss_kb.as_ref()),
        record.subtasks.to_string(),
        record.host.clone().unwrap_or_default(),
        record.backend.clone().unwrap_or_default(),
        labels(task),
        task.view.work.clone(),
    ]
}

fn labels(task: &Task) -> String {
    let pairs: Vec<_> = task
        .view
        .labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join(" ")
}

fn or_empty<T: ToString>(value: Option<&T>) -> String {
    value.map(T::to_string).unwrap_or_default()
}

fn line(cells: [String; 20]) -> String {
    let mut text = cells.map(|cell| quoted(&cell)).join(",");
    text.push_str("\r\n");
    text
}

fn quoted(cell: &str) -> String {
    if cell.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        let cells = ["a", "a,b", "say \"hi\"", "a\nb"].map(quoted);
        assert_eq!(cells, ["a", "\"a,b\"", "\"say \"\"hi\"\"\"", "\"a\nb\""]);
    }
}
