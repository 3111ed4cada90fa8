//! Messages of a later version: of a minor one, with fields that are unknown here, and of a major one, with another `v`.
//!
//! What users write is refused by the name of the field, since a misspelt one must not be overlooked; what the system
//! writes is read without it, so that managers and runners of two minor versions can run side by side.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;

use air_protocol::budget::Account;
use air_protocol::codec::{self, DecodeError};
use air_protocol::event::Event;
use air_protocol::spec::Wire;
use serde_json::{Map, Value, json};

/// Each golden message with its name.
fn golden() -> Vec<(String, Value)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1");
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    let files = files.filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    });
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (
            name,
            serde_json::from_slice(&fs::read(path).unwrap()).unwrap(),
        )
    };
    files.map(read).collect()
}

/// Reads a message of the kind that its name says, and gives what was understood.
fn read(name: &str, value: &Value) -> Result<Value, DecodeError> {
    let bytes = value.to_string().into_bytes();
    let written = match name.split('-').next().unwrap() {
        "task" => codec::encode(Wire::Json, &codec::decode_task(None, &bytes)?),
        "spec" => codec::encode(Wire::Json, &codec::decode_spec(&bytes)?),
        "record" => codec::encode(Wire::Json, &codec::decode_record(None, &bytes)?),
        "state" => codec::encode(Wire::Json, &codec::decode_state(&bytes)?),
        "account" => codec::encode(Wire::Json, &Account::decode(&bytes)?),
        "event" => codec::encode(
            Wire::Json,
            &serde_json::from_slice::<Event>(&bytes).unwrap(),
        ),
        other => panic!("nothing is called {other}"),
    };
    Ok(serde_json::from_slice(&written).unwrap())
}

fn with(object: &Value, field: &str, value: Value) -> Value {
    let mut fields: Map<_, _> = object.as_object().unwrap().clone();
    fields.insert(field.to_owned(), value);
    Value::Object(fields)
}

#[test]
fn a_field_of_a_later_minor_version_is_ignored_where_the_system_writes() {
    let later = json!({ "much": ["more", 1] });
    for (name, value) in golden() {
        if name.starts_with("task") || name.starts_with("spec") {
            continue;
        }
        let mut newer = with(&value, "added_later", later.clone());
        for part in ["lease", "counters", "purged", "data"] {
            if value[part].is_object() {
                newer[part] = with(&value[part], "added_later", later.clone());
            }
        }
        assert_eq!(
            read(&name, &newer).unwrap(),
            read(&name, &value).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn a_field_of_a_later_minor_version_is_refused_by_name_where_users_write() {
    for (name, value) in golden() {
        if name.starts_with("task") || name.starts_with("spec") {
            let refused = read(&name, &with(&value, "added_later", json!(1))).unwrap_err();
            let text = refused.to_string();
            assert!(
                text.contains("unknown field `added_later`"),
                "{name}: {text}"
            );
        }
    }
}

#[test]
fn a_newer_version_is_refused_and_says_what_to_do() {
    for (name, value) in golden() {
        if name.starts_with("event") {
            continue;
        }
        // A major version may have changed anything: the version is told before all else.
        let newer = with(&with(&value, "v", json!(2)), "added_later", json!(1));
        let refused = read(&name, &newer).unwrap_err();
        assert_eq!(refused, DecodeError::Version("2".to_owned()), "{name}");
        let text = refused.to_string();
        assert!(
            text.contains("`v` is 2") && text.contains("update"),
            "{text}"
        );
    }
}
