//! The JSON Schemas in `docs/schemas` are those of the types. `UPDATE_SCHEMAS=1` writes them anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use air_protocol::budget::Account;
use air_protocol::event::Event;
use air_protocol::job::JobState;
use air_protocol::record::Record;
use air_protocol::spec::Spec;
use air_protocol::task::Task;
use schemars::{JsonSchema, schema_for};

fn compare<T: JsonSchema>(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas");
    let path = folder.join(format!("{name}.json"));
    let mut text = serde_json::to_string_pretty(&schema_for!(T)).unwrap();
    text.push('\n');
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == text,
        "docs/schemas/{name}.json is not the schema of the type; run UPDATE_SCHEMAS=1 cargo test -p air-protocol --test schemas, and look at the difference"
    );
}

#[test]
fn task() {
    compare::<Task>("task");
}

#[test]
fn record() {
    compare::<Record>("record");
}

#[test]
fn state() {
    compare::<JobState>("state");
}

#[test]
fn spec() {
    compare::<Spec>("spec");
}

#[test]
fn account() {
    compare::<Account>("account");
}

#[test]
fn event() {
    compare::<Event>("event");
}
