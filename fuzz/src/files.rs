//! Files: what a task leaves behind, and what a person hands to `airx submit -f`.

use air_protocol::codec;
use air_protocol::spec::Wire;
use air_protocol::time::Time;
use air_runner::files;
use airx::tasks_file;
use serde_json::Value;

use crate::truths::{comes_back, is_told_well};

pub(crate) fn air_output(bytes: &[u8]) {
    match files::output_of(bytes) {
        Err(error) => is_told_well(&error),
        Ok(value) => {
            let text = serde_json::to_vec(&value).unwrap();
            comes_back(&value, files::output_of(&text));
        }
    }
}

pub(crate) fn air_retry_at(bytes: &[u8]) {
    let now = Time::from_millis(1_800_000_000_000);
    match files::retry_at_of(bytes, now) {
        Err(error) => is_told_well(&error),
        Ok(None) => {}
        Ok(Some(at)) => {
            // Written with the year 9999 at most.
            let text = at.to_string();
            let again = files::retry_at_of(text.as_bytes(), now);
            comes_back(&text, again.map(|at| at.unwrap_or_default().to_string()));
        }
    }
}

/// Tasks that are read are read again from JSON lines.
fn tasks(file: &str, bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match tasks_file::read(file, text) {
        Err(faults) => faults.iter().for_each(is_told_well),
        Ok(tasks) => {
            let lines: Vec<_> = tasks
                .iter()
                .map(|task| codec::encode(Wire::Json, task))
                .collect();
            let lines = String::from_utf8(lines.join(&b'\n')).unwrap();
            comes_back(&tasks, tasks_file::read("again.jsonl", &lines));
        }
    }
}

pub(crate) fn tasks_yaml(bytes: &[u8]) {
    tasks("tasks.yaml", bytes);
}

pub(crate) fn tasks_json(bytes: &[u8]) {
    tasks("tasks.json", bytes);
}

/// Also where nothing but the text says what it is.
pub(crate) fn tasks_lines(bytes: &[u8]) {
    tasks("tasks.jsonl", bytes);
    tasks("-", bytes);
}

pub(crate) fn yaml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let documents = match airx::yaml::read(text) {
        Err(error) => return is_told_well(&error),
        Ok(documents) => documents,
    };
    for document in documents {
        // Each of these may end a line, and an empty document begins behind the last one.
        assert!(document.line <= text.matches(['\n', '\r']).count() + 2);
        if let Value::Array(list) = &document.value {
            assert_eq!(
                list.len(),
                document.elements.len(),
                "an element has no line"
            );
        }
        let again = airx::yaml::read(&airx::yaml::write(&document.value));
        let again = again.map(|again| again.into_iter().map(|one| one.value).collect());
        comes_back(&vec![document.value], again);
    }
}
