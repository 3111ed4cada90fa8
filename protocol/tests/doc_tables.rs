//! The tables of `docs/protocol.md` say what the code says.
//!
//! A table stands behind a mark such as `<!-- table: task-fields -->`; its first column names things.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use air_protocol::claude::CLAUDE_FIELDS;
use air_protocol::event::Kind;
use air_protocol::names::Names;
use air_protocol::record::Status;
use air_protocol::spec::SPEC_FIELDS;
use air_protocol::task::TASK_FIELDS;
use air_protocol::time::Span;
use serde_json::Value;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn page() -> String {
    read("../docs/protocol.md")
}

/// The rows of a table, without its head.
fn rows(page: &str, table: &str) -> Vec<String> {
    let mark = format!("<!-- table: {table} -->");
    let (_, rest) = page
        .split_once(&mark)
        .unwrap_or_else(|| panic!("no mark {mark}"));
    let lines = rest.trim_start().lines();
    let rows = lines.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(str::to_owned).collect()
}

/// What stands between back quotes in the first column.
fn first_column(table: &str) -> Vec<String> {
    let name = |row: &String| {
        let cell = row.split('|').nth(1).unwrap_or_default().trim();
        let name = cell
            .strip_prefix('`')
            .and_then(|cell| cell.strip_suffix('`'));
        let name = name.unwrap_or_else(|| panic!("{table}: `{cell}` is no name in back quotes"));
        name.to_owned()
    };
    rows(&page(), table).iter().map(name).collect()
}

#[track_caller]
fn assert_names<T: AsRef<str>>(table: &str, wanted: impl IntoIterator<Item = T>) {
    let wanted: Vec<_> = wanted
        .into_iter()
        .map(|name| name.as_ref().to_owned())
        .collect();
    assert_eq!(
        first_column(table),
        wanted,
        "docs/protocol.md, table {table}"
    );
}

/// Fields of an object in a schema, and of its variants, in alphabetical order.
fn schema_fields(file: &str, pointer: &str) -> Vec<String> {
    let schema: Value =
        serde_json::from_str(&read(&format!("../docs/schemas/{file}.json"))).unwrap();
    let object = schema.pointer(pointer).unwrap();
    let variants = object["oneOf"].as_array().into_iter().flatten();
    let named = variants.clone().filter_map(|variant| {
        let name = variant["$ref"].as_str()?.strip_prefix('#')?;
        schema.pointer(name)
    });
    let objects = std::iter::once(object).chain(variants.clone()).chain(named);
    let fields = objects.flat_map(|object| object["properties"].as_object().into_iter().flatten());
    let mut fields: Vec<_> = fields.map(|(name, _)| name.clone()).collect();
    fields.sort();
    fields.dedup();
    fields
}

#[track_caller]
fn assert_fields(table: &str, file: &str, pointer: &str) {
    let mut names = first_column(table);
    names.sort();
    assert_eq!(
        names,
        schema_fields(file, pointer),
        "docs/protocol.md, table {table}"
    );
}

#[test]
fn fields_of_tasks_and_specs() {
    assert_names("task-fields", TASK_FIELDS);
    assert_names("spec-fields", SPEC_FIELDS);
    assert_names("claude-fields", CLAUDE_FIELDS);
    assert_fields("fanout-fields", "task", "/$defs/Fanout");
    assert_fields("retry-fields", "task", "/$defs/Retry");
}

#[test]
fn fields_of_records() {
    assert_fields("record-fields", "record", "");
}

#[test]
fn fields_of_states() {
    assert_fields("state-fields", "state", "");
    assert_fields("counter-fields", "state", "/$defs/Counters");
    assert_fields("target-fields", "state", "/$defs/Target");
    assert_fields("decision-fields", "state", "/$defs/Decision");
    assert_fields("lease-fields", "state", "/$defs/Lease");
}

#[test]
fn fields_of_accounts() {
    assert_fields("account-fields", "account", "");
}

#[test]
fn fields_of_events() {
    assert_fields("event-fields", "event", "");
    assert_fields("event-data-fields", "event", "/$defs/Data");
}

#[test]
fn statuses_and_types() {
    assert_names("statuses", Status::ALL.map(Status::as_str));
    assert_names("event-types", Kind::ALL.map(Kind::as_str));
}

#[test]
fn headers() {
    let source = read("src/names.rs");
    let (_, module) = source.split_once("pub mod headers {").unwrap();
    let (module, _) = module.split_once("\n}\n").unwrap();
    let names = module.lines().filter_map(|line| {
        let (_, value) = line.split_once(": &str = \"")?;
        value.strip_suffix("\";")
    });
    assert_names("headers", names);
}

#[test]
fn names() {
    let (page, names) = (page(), Names::default());
    let (job, task) = ("JOB".parse().unwrap(), "TASK".parse().unwrap());
    for name in [
        names.stream(),
        names.logs_stream(),
        names.events_stream(),
        names.jobs_bucket(),
        names.specs_bucket(),
        names.managers_bucket(),
        names.budgets_bucket(),
        names.blobs_bucket(),
        names.tasks(&job),
        names.results(&job, &task),
        names.schedule(&job, &task),
        names.logs(&job, &task),
        names.events(Some(&job), "TYPE"),
        names.signals(&job),
        names.all_tasks(),
        names.all_results(),
        names.all_schedules(),
        names.all_logs(),
        names.all_events(),
    ] {
        assert!(
            page.contains(&format!("`{name}`")),
            "docs/protocol.md does not name `{name}`"
        );
    }
}

/// Name, value and meaning of each limit, as a row.
fn limits() -> Vec<String> {
    let source = read("src/limits.rs");
    let mut meaning = String::new();
    let mut limits = Vec::new();
    for line in source.lines() {
        if let Some(text) = line.strip_prefix("/// ") {
            meaning = format!("{meaning} {text}").trim().to_owned();
        }
        if let Some((name, rest)) = line
            .strip_prefix("pub const ")
            .and_then(|rest| rest.split_once(": "))
        {
            let (_, value) = rest.trim_end_matches(';').split_once(" = ").unwrap();
            let meaning = std::mem::take(&mut meaning);
            limits.push(format!("| `{name}` | {} | {meaning} |", value_text(value)));
        }
    }
    limits
}

fn value_text(expression: &str) -> String {
    let seconds = expression.strip_prefix("Duration::from_secs(");
    let seconds = seconds.and_then(|rest| rest.strip_suffix(')'));
    let factors = seconds.unwrap_or(expression).split('*');
    let factor = |text: &str| text.trim().replace('_', "").parse::<u64>().unwrap();
    let number: u64 = factors.map(factor).product();
    if seconds.is_some() {
        return Span(std::time::Duration::from_secs(number)).to_string();
    }
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[test]
fn limits_and_their_values() {
    let wanted = limits();
    assert_eq!(
        rows(&page(), "limits"),
        wanted,
        "should be:\n{}",
        wanted.join("\n")
    );
}
