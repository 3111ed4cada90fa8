//! Reads what a task left in the files of its contract: `AIR_OUTPUT`, `AIR_RETRY_AT`
//! and `AIR_QUESTION`.
//!
//! What is wrong comes back as a text for the task's author: what, where, and how to mend it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use air_protocol::limits::{OUTPUT_BYTES_MAX, QUESTION_CHARS_MAX};
use air_protocol::quote::quote;
use air_protocol::time::Time;
use serde_json::Value;

/// Nesting of an output: one more than this stands in the record, which readers must take.
const OUTPUT_LEVELS_MAX: usize = 100;
/// Bytes of the file with the time of the next try.
const RETRY_AT_BYTES_MAX: u64 = 256;

/// The task's result; none when it wrote none.
pub(crate) fn output(path: &Path) -> Result<Option<Value>, String> {
    let bytes = read(path, "AIR_OUTPUT", OUTPUT_BYTES_MAX)?;
    bytes.map(|bytes| output_of(&bytes)).transpose()
}

/// The result that stands in `AIR_OUTPUT`.
///
/// # Errors
/// What is wrong with it, and how to mend it.
pub fn output_of(bytes: &[u8]) -> Result<Value, String> {
    let value = serde_json::from_slice(bytes).map_err(|error| {
        format!("AIR_OUTPUT holds no JSON: {error}; write one JSON value into the file")
    })?;
    if levels(&value) > OUTPUT_LEVELS_MAX {
        return Err(format!(
            "AIR_OUTPUT is nested deeper than {OUTPUT_LEVELS_MAX} levels; write a flatter value"
        ));
    }
    Ok(value)
}

/// When the task wants to be run again; none when it does not say.
pub(crate) fn retry_at(path: &Path, now: Time) -> Result<Option<Time>, String> {
    let bytes = read(path, "AIR_RETRY_AT", RETRY_AT_BYTES_MAX)?;
    bytes.map_or(Ok(None), |bytes| retry_at_of(&bytes, now))
}

/// The time that stands in `AIR_RETRY_AT`; none when it says nothing.
///
/// # Errors
/// What is wrong with it, and how to mend it.
pub fn retry_at_of(bytes: &[u8], now: Time) -> Result<Option<Time>, String> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(seconds) = text.parse() {
        return Ok(Some(now.after(Duration::from_secs(seconds))));
    }
    text.parse().map(Some).map_err(|_| {
        format!(
            "AIR_RETRY_AT holds `{}`, which is no time; write RFC 3339 in UTC, such as \
             2026-01-31T08:00:00Z, or a number of seconds from now",
            quote(text)
        )
    })
}

/// What the task asks a person; none when it asks nothing.
pub(crate) fn question(path: &Path) -> Result<Option<String>, String> {
    // A character takes at most 4 bytes.
    let bytes = read(path, "AIR_QUESTION", 4 * QUESTION_CHARS_MAX as u64)?;
    bytes.map_or(Ok(None), |bytes| question_of(&bytes))
}

/// The question that stands in `AIR_QUESTION`; none when it says nothing.
///
/// # Errors
/// What is wrong with it, and how to mend it.
pub fn question_of(bytes: &[u8]) -> Result<Option<String>, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| "AIR_QUESTION holds no text; write the question in UTF-8".to_owned())?
        .trim();
    let chars = text.chars().count();
    if chars > QUESTION_CHARS_MAX {
        return Err(format!(
            "AIR_QUESTION has {chars} characters, but {QUESTION_CHARS_MAX} are the most; ask in fewer words"
        ));
    }
    Ok((!text.is_empty()).then(|| text.replace('\0', "")))
}

fn read(path: &Path, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, String> {
    let failed = |error: io::Error| format!("{name} cannot be read: {error}");
    let Some(file) = open(path, name)? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    file.take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!(
            "{name} has more than {bytes_max} bytes, which are the most; write less, and hand large data \
             over as a file or address"
        ));
    }
    Ok(Some(bytes))
}

/// Opens a file of the contract, which the task may have replaced by anything; none when there is none.
pub(crate) fn open(path: &Path, name: &str) -> Result<Option<File>, String> {
    let failed = |error: io::Error| format!("{name} cannot be read: {error}");
    match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
        Ok(found) if !found.is_file() => Err(format!(
            "{name} is not a file any more; write into the file that is there"
        )),
        Ok(_) => File::open(path).map(Some).map_err(failed),
    }
}

fn levels(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(levels).max().unwrap_or(0),
        Value::Object(fields) => fields.values().map(levels).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn an_output_is_one_json_value() {
        let (_folder, path) = written(b" {\"a\": [1]}\n");
        assert_eq!(
            output(&path).unwrap(),
            Some(serde_json::json!({ "a": [1] }))
        );
        let digits = "3.3333333333333337e72";
        assert_eq!(
            output_of(digits.as_bytes()).unwrap().to_string(),
            "3.3333333333333337e+72"
        );
        assert_eq!(output(Path::new("/none/there")).unwrap(), None);
        for (text, part) in [
            ("", "line 1 column 0"),
            ("{\"a\":\n 1", "line 2"),
            ("1 2", "trailing"),
        ] {
            let (_folder, path) = written(text.as_bytes());
            let error = output(&path).unwrap_err();
            assert!(
                error.contains("AIR_OUTPUT") && error.contains(part),
                "{error}"
            );
        }
        let deep = format!("{}{}", "[".repeat(101), "]".repeat(101));
        let (_folder, path) = written(deep.as_bytes());
        assert!(output(&path).unwrap_err().contains("nested"));
        let (folder, _) = written(b"");
        assert!(output(folder.path()).unwrap_err().contains("not a file"));
    }

    #[test]
    fn a_time_is_rfc_3339_or_seconds() {
        let now = Time::from_millis(5000);
        let at = |text: &str| {
            let (_folder, path) = written(text.as_bytes());
            retry_at(&path, now)
        };
        assert_eq!(at("90\n"), Ok(Some(Time::from_millis(95_000))));
        assert_eq!(
            at("1970-01-01T00:00:07Z"),
            Ok(Some(Time::from_millis(7000)))
        );
        assert_eq!(at(" \n"), Ok(None));
        assert!(at("soon").unwrap_err().contains("`soon`"));
        assert!(at(&"9".repeat(300)).unwrap_err().contains("256"));
    }
}
