//! The bytes of version 1, kept for ever: what was written once is read, and written again the same.
//!
//! Each file of `v1` is one message: `<kind>-<name>.json` as JSON with a newline, and for tasks and
//! records `<kind>-<name>.msgpack` as MessagePack in hexadecimal (keys and events are always JSON).
//! Files are added, never changed. `UPDATE_GOLDEN=1` writes the MessagePack of a new JSON file.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use air_protocol::budget::Account;
use air_protocol::codec::{self, MSGPACK};
use air_protocol::event::{Event, Kind};
use air_protocol::record::Status;
use air_protocol::spec::{SPEC_FIELDS, Wire};
use air_protocol::task::{TASK_FIELDS, WORK_FIELDS};
use serde_json::Value;

const HEX_BYTES_PER_LINE: usize = 40;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn names(extension: &str) -> BTreeSet<String> {
    let files = fs::read_dir(folder()).unwrap();
    let files = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let names = files.filter_map(|file| file.strip_suffix(extension).map(str::to_owned));
    names.collect()
}

fn json(name: &str) -> Vec<u8> {
    let text = fs::read_to_string(folder().join(format!("{name}.json"))).unwrap();
    text.strip_suffix('\n').unwrap().into()
}

fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(HEX_BYTES_PER_LINE) {
        for byte in line {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
    }
    text
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: String = text.lines().collect();
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// Reads the bytes as the kind of message that the file's name says, and writes it again.
fn again(name: &str, content_type: Option<&str>, bytes: &[u8], wire: Wire) -> Vec<u8> {
    let fail = |error: &dyn std::fmt::Display| -> ! { panic!("{name}: {error}") };
    match name.split('-').next().unwrap() {
        "task" => match codec::decode_task(content_type, bytes) {
            Ok(task) => codec::encode(wire, &task),
            Err(error) => fail(&error),
        },
        "record" => match codec::decode_record(content_type, bytes) {
            Ok(record) => codec::encode(wire, &record),
            Err(error) => fail(&error),
        },
        "state" => match codec::decode_state(bytes) {
            Ok(state) => codec::encode(wire, &state),
            Err(error) => fail(&error),
        },
        "spec" => match codec::decode_spec(bytes) {
            Ok(spec) => codec::encode(wire, &spec),
            Err(error) => fail(&error),
        },
        "account" => match Account::decode(bytes) {
            Ok(account) => codec::encode(wire, &account),
            Err(error) => fail(&error),
        },
        "event" => match serde_json::from_slice::<Event>(bytes) {
            Ok(event) => codec::encode(wire, &event),
            Err(error) => fail(&error),
        },
        kind => panic!("{name}: nothing is called {kind}"),
    }
}

#[test]
fn json_is_read_and_written_the_same() {
    for name in names(".json") {
        let bytes = json(&name);
        let written = again(&name, None, &bytes, Wire::Json);
        let (written, bytes) = (String::from_utf8(written), String::from_utf8(bytes));
        assert_eq!(written, bytes, "{name}");
    }
}

#[test]
fn msgpack_is_read_and_written_the_same() {
    for name in names(".json") {
        if !name.starts_with("task-") && !name.starts_with("record-") {
            continue;
        }
        let path = folder().join(format!("{name}.msgpack"));
        let packed = again(&name, None, &json(&name), Wire::Msgpack);
        if !path.exists() && std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, to_hex(&packed)).unwrap();
        }
        let kept = from_hex(&fs::read_to_string(&path).unwrap_or_default());
        assert!(
            !kept.is_empty(),
            "{name}.msgpack is missing; run with UPDATE_GOLDEN=1"
        );
        assert_eq!(packed, kept, "{name}: from JSON");
        let written = again(&name, Some(MSGPACK), &kept, Wire::Msgpack);
        assert_eq!(written, kept, "{name}");
        let written = again(&name, Some(MSGPACK), &kept, Wire::Json);
        assert_eq!(written, json(&name), "{name}: to JSON");
    }
}

#[test]
fn a_smaller_task_than_ours_is_read() {
    let written = again("task-", None, br#"{"run":"echo hi"}"#, Wire::Json);
    assert_eq!(written, json("task-minimal"));
}

#[test]
fn nothing_is_left_out() {
    let names = names(".json");
    let has = |name: String| assert!(names.contains(&name), "no {name}.json");
    for status in Status::ALL {
        has(format!("record-{}", status.as_str()));
    }
    for kind in Kind::ALL {
        has(format!("event-{}", kind.as_str()));
    }
    for status in [
        "waiting",
        "completed",
        "failed",
        "cancelling",
        "cancelled",
        "removing",
    ] {
        has(format!("state-{status}"));
    }
    for phase in [
        "starting",
        "running",
        "stopping-cancel",
        "stopping-remove",
        "settling",
    ] {
        has(format!("state-working-{phase}"));
        has(format!("state-working-recovering-{phase}"));
    }
}

/// The fields of a message, and of those that were added with later fields (`-2`, `-3`, …).
fn fields(name: &str) -> BTreeSet<String> {
    let later = format!("{name}-");
    let all = names(".json").into_iter();
    let all = all.filter(|one| one == name || one.starts_with(&later));
    let fields = all.flat_map(|one| {
        let value: Value = serde_json::from_slice(&json(&one)).unwrap();
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    });
    fields.collect()
}

#[test]
fn everything_has_every_field() {
    let owned = |fields: &[&str]| -> BTreeSet<String> {
        fields.iter().map(|&field| field.to_owned()).collect()
    };
    assert_eq!(fields("spec-everything"), owned(SPEC_FIELDS));
    let mut task = owned(TASK_FIELDS);
    task.retain(|field| field == "exec" || !WORK_FIELDS.contains(&field.as_str()));
    assert_eq!(fields("task-everything"), task);
    for (name, schema) in [
        ("record-everything", "record"),
        ("state-everything", "state"),
        ("account-everything", "account"),
    ] {
        let path = format!("../docs/schemas/{schema}.json");
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
        let schema: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let known = schema["properties"].as_object().unwrap().keys().cloned();
        let mut fields = fields(name);
        if !schema["oneOf"].is_null() {
            fields.remove("status");
        }
        assert_eq!(fields, known.collect(), "{name}");
    }
}
