//! Reading tasks from a file: YAML, JSON or JSON lines. All of it is good, or nothing is taken.

use std::collections::HashMap;
use std::path::Path;

use air_protocol::codec;
use air_protocol::limits::TASK_BYTES_MAX;
use air_protocol::spec::Wire;
use air_protocol::task::{Task, Work};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::yaml;

/// What is wrong with one task of a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {reason}")]
pub struct Bad {
    /// The file.
    pub file: String,
    /// The line on which the task begins, or where the text cannot be read, from 1.
    pub line: usize,
    /// What is wrong, and in which field.
    pub reason: String,
}

/// A value and the line on which it begins, or what is wrong there.
type Item = (usize, Result<Value, String>);

/// Reads tasks. `file` is its name, `-` for standard input.
///
/// # Errors
/// Everything that is wrong, by line.
pub fn read(file: &str, text: &str) -> Result<Vec<Task>, Vec<Bad>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let items = match format(file, text) {
        Format::Yaml => yaml_items(text),
        Format::Json => json_items(text),
        Format::Lines => line_items(text),
    };
    let bad = |line, reason| Bad {
        file: file.to_owned(),
        line,
        reason,
    };
    let (mut tasks, mut faults) = (Vec::new(), Vec::new());
    let mut ids = HashMap::new();
    for (line, value) in items {
        let task = value.and_then(check);
        match task {
            Ok(task) => {
                let key = task.id.clone().map(|id| (task.job.clone(), id));
                match key.and_then(|key| ids.insert(key, line)) {
                    Some(first) => faults.push(bad(
                        line,
                        format!("`id`: the task of line {first} has the same one"),
                    )),
                    None => tasks.push(task),
                }
            }
            Err(reason) => faults.push(bad(line, reason)),
        }
    }
    if tasks.is_empty() && faults.is_empty() {
        faults.push(bad(1, "there is no task in it".to_owned()));
    }
    if faults.is_empty() {
        Ok(tasks)
    } else {
        Err(faults)
    }
}

/// A task as users may publish it.
///
/// # Errors
/// What is wrong with it, and in which field.
pub fn check(value: Value) -> Result<Task, String> {
    let task = codec::task_of(value).map_err(|error| error.to_string())?;
    checked(task)
}

/// A task as users may publish it.
///
/// # Errors
/// What is wrong with it, and in which field.
pub fn checked(task: Task) -> Result<Task, String> {
    task.check().map_err(|error| error.to_string())?;
    if let Work::Fanout(_) = task.work {
        return Err("`fanout` is written by the system only; give `run` or `exec`".to_owned());
    }
    if let Some(id) = task.id.as_ref().filter(|id| id.sequence().is_some()) {
        return Err(format!(
            "`id`: `{id}` has a form that only the system gives; choose one without the leading _"
        ));
    }
    let bytes = codec::encode(Wire::Json, &task).len();
    if bytes > TASK_BYTES_MAX {
        return Err(codec::DecodeError::TooLarge(bytes).to_string());
    }
    Ok(task)
}

enum Format {
    Yaml,
    Json,
    Lines,
}

/// By the name of the file; where that says nothing, by how the text begins.
fn format(file: &str, text: &str) -> Format {
    let extension = Path::new(file)
        .extension()
        .and_then(|extension| extension.to_str());
    let first = text
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    let lines = serde_json::from_str::<Value>(first).is_ok_and(|value| value.is_object());
    match extension.map(str::to_ascii_lowercase).as_deref() {
        Some("yaml" | "yml") => Format::Yaml,
        Some("jsonl" | "ndjson") => Format::Lines,
        _ if lines => Format::Lines,
        Some("json") => Format::Json,
        _ if first.trim_start().starts_with(['{', '[']) => Format::Json,
        _ => Format::Yaml,
    }
}

fn yaml_items(text: &str) -> Vec<Item> {
    let documents = match yaml::read(text) {
        Ok(documents) => documents,
        Err(error) => return vec![(error.line, Err(format!("it is no YAML: {}", error.reason)))],
    };
    let mut items = Vec::new();
    for document in documents {
        match document.value {
            Value::Array(list) => {
                items.extend(document.elements.into_iter().zip(list.into_iter().map(Ok)))
            }
            Value::Null => {}
            value => items.push((document.line, Ok(value))),
        }
    }
    items
}

fn line_items(text: &str) -> Vec<Item> {
    let lines = (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.trim().is_empty());
    let value = |line| serde_json::from_str(line).map_err(|error| no_json(&error));
    lines.map(|(number, line)| (number, value(line))).collect()
}

/// Objects one after another, or a list of them.
fn json_items(text: &str) -> Vec<Item> {
    let mut items = Vec::new();
    let mut lines = LineCount::new(text);
    for raw in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
        let raw = match raw {
            Ok(raw) => raw.get(),
            Err(error) => {
                items.push((error.line().max(1), Err(no_json(&error))));
                return items;
            }
        };
        match serde_json::from_str::<Vec<&RawValue>>(raw) {
            Ok(list) => items.extend(list.iter().map(|raw| item(&mut lines, raw.get()))),
            Err(_) => items.push(item(&mut lines, raw)),
        }
    }
    items
}

/// A part of a text that is known to be JSON.
fn item(lines: &mut LineCount<'_>, part: &str) -> Item {
    (
        lines.of(part),
        serde_json::from_str(part).map_err(|error| no_json(&error)),
    )
}

/// The lines of parts of a text, asked for from its start to its end: each byte is looked at once.
struct LineCount<'a> {
    text: &'a str,
    /// How far the text was looked at.
    offset: usize,
    /// The line there.
    line: usize,
    #[cfg(test)]
    looked_at: usize,
}

impl<'a> LineCount<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            offset: 0,
            line: 1,
            #[cfg(test)]
            looked_at: 0,
        }
    }

    /// The line on which `part` begins, from 1.
    fn of(&mut self, part: &str) -> usize {
        let offset = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let new = self.text.as_bytes().get(self.offset..offset);
        let new = new.unwrap_or_default();
        self.line += new.iter().filter(|byte| **byte == b'\n').count();
        self.offset = self.offset.max(offset);
        #[cfg(test)]
        {
            self.looked_at += new.len();
        }
        self.line
    }
}

fn no_json(error: &serde_json::Error) -> String {
    format!("it is no JSON: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn works(file: &str, text: &str) -> Vec<String> {
        read(file, text)
            .unwrap()
            .iter()
            .map(|task| task.work.summary())
            .collect()
    }

    fn faults(file: &str, text: &str) -> Vec<String> {
        read(file, text)
            .unwrap_err()
            .iter()
            .map(Bad::to_string)
            .collect()
    }

    #[test]
    fn every_form_is_read() {
        assert_eq!(works("t.yaml", "- run: a\n- exec: [b, c]\n"), ["a", "b c"]);
        assert_eq!(works("-", "run: a\n---\nrun: b\n---\n"), ["a", "b"]);
        assert_eq!(
            works("t.json", "[\n {\"run\": \"a\"},\n {\"run\": \"b\"}]"),
            ["a", "b"]
        );
        assert_eq!(
            works("-", "{\n\"run\": \"a\"\n}\n{\"run\": \"b\"}"),
            ["a", "b"]
        );
        assert_eq!(
            works("-", "{\"run\":\"a\"}\n\n{\"run\":\"b\"}\n"),
            ["a", "b"]
        );
        assert_eq!(works("-", "\u{feff}run: a"), ["a"]);
        assert_eq!(
            works("-", "- &x {run: a}\n- *x\n- run: c\n"),
            ["a", "a", "c"]
        );
    }

    #[test]
    fn a_bad_task_is_told_by_file_line_and_field() {
        assert_eq!(
            faults("t.yaml", "- run: a\n- run: b\n  time_out: 3\n"),
            ["t.yaml:2: unknown field `time_out`; did you mean `timeout`?"]
        );
        assert_eq!(
            faults("t.yml", "run: a\n---\nrun: b\nretry: {max: x}\n").len(),
            1
        );
        let json = faults(
            "t.json",
            "[\n{\"run\": \"a\"},\n{\"run\": \"b\",\n \"id\": \"a b\"},\n 7\n]",
        );
        assert!(json[0].starts_with("t.json:3: `id`"), "{json:?}");
        assert!(json[1].starts_with("t.json:5: it is a number"), "{json:?}");
        let lines = faults(
            "t.jsonl",
            "{\"run\":\"a\"}\n{\"run\":\n{\"run\":\"b\",\"exec\":[\"c\"]}\n",
        );
        assert!(
            lines[0].starts_with("t.jsonl:2: it is no JSON"),
            "{lines:?}"
        );
        assert!(
            lines[1].starts_with("t.jsonl:3: give exactly one"),
            "{lines:?}"
        );
        assert!(faults("t.json", "[\n{\"run\": }\n]")[0].starts_with("t.json:2: "));
        assert!(faults("t.yaml", "- run: a\n- [\n")[0].contains("no YAML"));
        assert!(faults("t.yaml", "")[0].contains("no task"));
    }

    #[test]
    fn the_lines_of_a_large_list_are_counted_once() {
        let task = "{\"run\": \"a\"}";
        let list = format!("[\n{}\n7]", format!("{task},\n").repeat(50_000));
        assert!(faults("t.json", &list)[0].starts_with("t.json:50003: "));
        let mut lines = LineCount::new(&list);
        for (number, part) in list.lines().enumerate() {
            assert_eq!(lines.of(part), number + 1);
        }
        assert!(lines.looked_at <= list.len(), "{}", lines.looked_at);
    }

    #[test]
    fn what_is_the_systems_is_not_the_users() {
        assert!(faults("-", r#"{"run":"a","id":"_7"}"#)[0].contains("only the system"));
        let fanout = r#"{"fanout":{"run":"0190b2c4-0000-7000-8000-000000000000","parent":"a/b","page":1,"pages":2}}"#;
        assert!(faults("-", fanout)[0].contains("`fanout`"));
        assert_eq!(
            faults(
                "-",
                "- {run: a, id: x}\n- {run: b, id: x}\n- {run: b, id: x, job: j}\n"
            ),
            ["-:2: `id`: the task of line 1 has the same one"]
        );
        let large = format!("run: {}\n", "x".repeat(TASK_BYTES_MAX));
        assert!(faults("-", &large)[0].contains("are the most"));
    }
}
