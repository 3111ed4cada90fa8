//! Bytes to messages and back: JSON, or MessagePack where `Content-Type` says so.
//!
//! Reading is strict: a field that does not exist is refused with the nearest one that does, and a
//! newer version than known is refused, never guessed at.

use serde::de::DeserializeOwned;
use serde::{Deserialize as _, Serialize};
use serde_json::Value;

use crate::VERSION;
use crate::job::JobState;
use crate::limits::{TASK_BYTES_MAX, TASK_DEPTH_MAX};
use crate::quote::quote;
use crate::record::Record;
use crate::spec::{SPEC_FIELDS, Spec, SpecRule, Wire};
use crate::task::{TASK_FIELDS, Task, TaskRule, WORK_FIELDS};

/// `Content-Type` of JSON.
pub const JSON: &str = "application/json";
/// `Content-Type` of MessagePack.
pub const MSGPACK: &str = "application/msgpack";

/// Levels of a value in MessagePack: those that the reader of JSON takes, so that each codec can say what the other can.
const MSGPACK_DEPTH_MAX: usize = 128;

/// Bytes are no message. The text fits behind "failed to read it: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No bytes at all.
    #[error("the message is empty; publish a task such as {{\"run\":\"echo hi\"}}")]
    Empty,
    /// Too many bytes.
    #[error(
        "the message has {0} bytes, but {TASK_BYTES_MAX} are the most; hand large input over as a file or address"
    )]
    TooLarge(usize),
    /// Too many levels.
    #[error(
        "it has more than {TASK_DEPTH_MAX} levels of lists and objects; hand deep input over as a text or a file"
    )]
    TooDeep,
    /// A codec that nobody knows.
    #[error("`Content-Type` is `{}`; use {JSON} or {MSGPACK}", quote(.0))]
    ContentType(String),
    /// Not of the codec.
    #[error("it is no {codec}: {}", quote(.reason))]
    Syntax {
        /// The codec.
        codec: &'static str,
        /// What its reader says.
        reason: String,
    },
    /// Not an object.
    #[error("it is {0}, not an object; publish a task such as {{\"run\":\"echo hi\"}}")]
    NotAnObject(&'static str),
    /// A field that does not exist.
    #[error("unknown field `{}`{}", quote(.field), hint(.nearest.as_ref()))]
    UnknownField {
        /// The field.
        field: String,
        /// The nearest one that exists.
        nearest: Option<String>,
    },
    /// None or several of the fields of which one must be there.
    #[error("give exactly one of `run`, `exec` and `claude`{}", given(.0))]
    Work(Vec<String>),
    /// A field of the wrong type.
    #[error("`{}`: {}", quote(.path), quote(.reason))]
    Field {
        /// Where.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A newer version.
    #[error(
        "its version `v` is {}, but this version of Air-Executor knows only {VERSION}; update it", quote(.0)
    )]
    Version(String),
    /// A rule of tasks is broken.
    #[error(transparent)]
    Task(#[from] TaskRule),
    /// A rule of specs is broken.
    #[error(transparent)]
    Spec(#[from] SpecRule),
}

impl DecodeError {
    /// Whether it is a message of a newer version: it is refused, and nothing is written in its place.
    pub fn is_newer(&self) -> bool {
        match self {
            Self::Version(version) => version
                .parse::<u64>()
                .is_ok_and(|version| version > u64::from(VERSION)),
            _ => false,
        }
    }
}

fn hint(nearest: Option<&String>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

fn given(fields: &[String]) -> String {
    if fields.is_empty() {
        return "; none is there".to_owned();
    }
    let names: Vec<_> = fields.iter().map(|name| format!("`{name}`")).collect();
    format!("; there are {}", names.join(" and "))
}

/// Reads a task; `content_type` is the header of that name, if any.
///
/// # Errors
/// What is wrong with it, where, and how to mend it.
pub fn decode_task(content_type: Option<&str>, bytes: &[u8]) -> Result<Task, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    if bytes.len() > TASK_BYTES_MAX {
        return Err(DecodeError::TooLarge(bytes.len()));
    }
    task_of(value(content_type, bytes)?)
}

/// Reads a task from a JSON value, by the same rules as from bytes.
///
/// # Errors
/// What is wrong with it, where, and how to mend it.
pub fn task_of(value: Value) -> Result<Task, DecodeError> {
    let Value::Object(fields) = &value else {
        return Err(DecodeError::NotAnObject(type_name(&value)));
    };
    check_version(&value)?;
    if depth(&value, TASK_DEPTH_MAX + 1) > TASK_DEPTH_MAX {
        return Err(DecodeError::TooDeep);
    }
    check_fields(fields.keys(), TASK_FIELDS)?;
    let work: Vec<_> = WORK_FIELDS
        .iter()
        .filter(|name| fields.contains_key(**name))
        .map(|&name| name.to_owned())
        .collect();
    if work.len() != 1 {
        return Err(DecodeError::Work(work));
    }
    let task: Task = typed(value)?;
    task.check()?;
    Ok(task)
}

/// Reads a spec.
///
/// # Errors
/// What is wrong with it, where, and how to mend it.
pub fn decode_spec(bytes: &[u8]) -> Result<Spec, DecodeError> {
    let value = value(None, bytes)?;
    let Value::Object(fields) = &value else {
        return Err(DecodeError::NotAnObject(type_name(&value)));
    };
    check_version(&value)?;
    check_fields(fields.keys(), SPEC_FIELDS)?;
    let spec: Spec = typed(value)?;
    spec.check()?;
    Ok(spec)
}

/// Reads a record.
///
/// # Errors
/// What is wrong with it, and where.
pub fn decode_record(content_type: Option<&str>, bytes: &[u8]) -> Result<Record, DecodeError> {
    let value = value(content_type, bytes)?;
    check_version(&value)?;
    typed(value)
}

/// Reads the state of a job.
///
/// # Errors
/// What is wrong with it, and where.
pub fn decode_state(bytes: &[u8]) -> Result<JobState, DecodeError> {
    let value = value(None, bytes)?;
    check_version(&value)?;
    typed(value)
}

/// Writes a message in a codec.
pub fn encode<T: Serialize>(wire: Wire, message: &T) -> Vec<u8> {
    let bytes = match wire {
        Wire::Json => serde_json::to_vec(message).ok(),
        Wire::Msgpack => to_msgpack(message),
    };
    debug_assert!(
        bytes.is_some(),
        "our messages have no map keys that are not text"
    );
    bytes.unwrap_or_default()
}

/// Maps with names, and ids as text as in JSON: what either codec writes is the same value.
fn to_msgpack<T: Serialize>(message: &T) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut serializer = rmp_serde::Serializer::new(&mut bytes)
        .with_struct_map()
        .with_human_readable();
    message.serialize(&mut serializer).ok()?;
    Some(bytes)
}

/// The `Content-Type` of a codec.
pub fn content_type(wire: Wire) -> &'static str {
    match wire {
        Wire::Json => JSON,
        Wire::Msgpack => MSGPACK,
    }
}

pub(crate) fn value(content_type: Option<&str>, bytes: &[u8]) -> Result<Value, DecodeError> {
    let name = content_type.unwrap_or(JSON);
    match name.split(';').next().unwrap_or_default().trim() {
        JSON | "" => serde_json::from_slice(bytes).map_err(|error| DecodeError::Syntax {
            codec: "JSON",
            reason: error.to_string(),
        }),
        MSGPACK => msgpack(bytes).map_err(|reason| DecodeError::Syntax {
            codec: "MessagePack",
            reason,
        }),
        other => Err(DecodeError::ContentType(other.to_owned())),
    }
}

/// One value, as the reader of JSON takes it: nothing after it, and no deeper.
fn msgpack(bytes: &[u8]) -> Result<Value, String> {
    let mut rest = bytes;
    let mut reader = rmp_serde::Deserializer::new(&mut rest);
    reader.set_max_depth(MSGPACK_DEPTH_MAX);
    let value = Value::deserialize(&mut reader).map_err(|error| error.to_string())?;
    match rest.len() {
        0 => Ok(value),
        more => Err(format!("{more} bytes follow its end; send one value alone")),
    }
}

pub(crate) fn typed<T: DeserializeOwned>(value: Value) -> Result<T, DecodeError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = match error.path().to_string() {
            path if path == "." => "message".to_owned(),
            path => path,
        };
        DecodeError::Field {
            path,
            reason: error.into_inner().to_string(),
        }
    })
}

pub(crate) fn check_version(value: &Value) -> Result<(), DecodeError> {
    match value.get("v") {
        None => Ok(()),
        Some(version) if version.as_u64() == Some(u64::from(VERSION)) => Ok(()),
        Some(version) => Err(DecodeError::Version(version.to_string())),
    }
}

fn check_fields<'a>(
    fields: impl Iterator<Item = &'a String>,
    known: &[&str],
) -> Result<(), DecodeError> {
    for field in fields {
        if !known.contains(&field.as_str()) {
            let nearest = nearest(field, known).map(str::to_owned);
            return Err(DecodeError::UnknownField {
                field: field.clone(),
                nearest,
            });
        }
    }
    Ok(())
}

/// Levels of lists and objects, counted up to `most`.
fn depth(value: &Value, most: usize) -> usize {
    let below = |value| depth(value, most.saturating_sub(1));
    match value {
        _ if most == 0 => 0,
        Value::Array(list) => 1 + list.iter().map(below).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(below).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The known word nearest to `word`, if any is near.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let near = |&known: &&'a str| (edits(word, known), known);
    let (distance, best) = known.iter().map(near).min()?;
    (distance <= 1 + word.len() / 3).then_some(best)
}

/// Insertions, deletions and replacements between two words.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(64).enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replace = corner + usize::from(from != *to);
            corner = row[j + 1];
            row[j + 1] = replace.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        decode_task(None, text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_word_is_near_when_a_third_of_its_letters_and_one_more_differ() {
        for (a, b, distance) in [
            ("", "abc", 3),
            ("abc", "", 3),
            ("abc", "abd", 1),
            ("run", "urn", 2),
            ("timeout", "tmeout", 1),
        ] {
            assert_eq!(edits(a, b), distance, "{a} {b}");
        }
        assert_eq!(nearest("xxcdef", &["abcdef"]), Some("abcdef"));
        assert_eq!(nearest("xxxdef", &["abcdef"]), Some("abcdef"));
        assert_eq!(nearest("xxxxef", &["abcdef"]), None);
        assert_eq!(nearest("ax", &["ab"]), Some("ab"));
        assert_eq!(nearest("xy", &["ab"]), None);
    }

    #[test]
    fn levels_are_counted_no_further_than_asked() {
        let value: Value = serde_json::from_str(r#"{"a":[[1]],"b":2}"#).unwrap();
        assert_eq!(depth(&value, 9), 3);
        assert_eq!(depth(&value, 2), 2);
    }

    #[test]
    fn a_message_of_another_form_is_told_as_a_whole() {
        let text = decode_state(br#"{"v":1}"#).unwrap_err().to_string();
        assert!(text.contains("message"), "{text}");
    }

    #[test]
    fn only_a_later_version_is_newer() {
        let newer = |text: &str| decode_state(text.as_bytes()).unwrap_err().is_newer();
        assert!(newer(r#"{"v":2}"#) && newer(r#"{"v":300}"#));
        assert!(!newer(r#"{"v":0}"#) && !newer(r#"{"v":"2"}"#), "no version");
        assert!(!newer("no JSON") && !newer(r#"{"v":1}"#), "garbage");
        let same = DecodeError::Version(VERSION.to_string());
        assert!(!same.is_newer());
    }

    #[test]
    fn a_content_type_is_that_of_its_codec() {
        assert_eq!(content_type(Wire::Json), "application/json");
        assert_eq!(content_type(Wire::Msgpack), "application/msgpack");
    }

    #[test]
    fn a_task_may_be_as_large_as_the_limit() {
        let text = |bytes: usize| format!(r#"{{"run":"{}"}}"#, "x".repeat(bytes - 10));
        let decode = |bytes| decode_task(None, text(bytes).as_bytes());
        assert!(!matches!(
            decode(TASK_BYTES_MAX),
            Err(DecodeError::TooLarge(_))
        ));
        let over = decode(TASK_BYTES_MAX + 1);
        assert!(matches!(over, Err(DecodeError::TooLarge(bytes)) if bytes == TASK_BYTES_MAX + 1));
    }

    #[test]
    fn a_task_can_be_tiny() {
        let task = decode_task(None, br#"{"run":"echo hi"}"#).unwrap();
        assert_eq!(encode(Wire::Json, &task), br#"{"v":1,"run":"echo hi"}"#);
    }

    #[test]
    fn both_codecs_carry_everything() {
        let text = br#"{"v":1,"id":"a","exec":["x"],"needs":["b",{"task":"j/c","when":"done"}],"input":{"n":[1,null]},
            "env":{"A":"b"},"timeout":"1h","retry":{"max":1},"not_before":"2026-01-31T08:00:00Z","labels":{"l":"m"}}"#;
        let task = decode_task(None, text).unwrap();
        let packed = encode(Wire::Msgpack, &task);
        assert_eq!(decode_task(Some(MSGPACK), &packed).unwrap(), task);
        assert_eq!(
            decode_task(
                Some("application/json; charset=utf-8"),
                &encode(Wire::Json, &task)
            )
            .unwrap(),
            task
        );
    }

    #[test]
    fn errors_say_what_and_where() {
        assert!(error("").contains("empty"));
        assert!(error("{").contains("no JSON"));
        assert!(error("[1]").contains("a list"));
        assert!(error("{}").contains("none is there"));
        assert!(error(r#"{"run":"a","exec":["b"]}"#).contains("`run` and `exec`"));
        assert!(error(r#"{"run":"a","time_out":1}"#).contains("did you mean `timeout`"));
        assert!(error(r#"{"run":"a","zzzzzzzz":1}"#).ends_with("unknown field `zzzzzzzz`"));
        assert!(error(r#"{"run":"a","id":"a b"}"#).contains("`id`"));
        assert!(error(r#"{"run":"a","retry":{"max":"x"}}"#).contains("`retry.max`"));
        assert!(error(r#"{"run":"a","retry":{"maxx":1}}"#).contains("maxx"));
        assert!(error(r#"{"run":"a","v":2}"#).contains("update"));
        let deep = |levels: usize| {
            format!(
                r#"{{"run":"a","input":{}{}}}"#,
                "[".repeat(levels),
                "]".repeat(levels)
            )
        };
        assert!(error(&deep(100)).contains("100 levels"));
        assert!(decode_task(None, deep(99).as_bytes()).is_ok());
        assert!(error(&format!(r#"{{"run":"{}"}}"#, "x".repeat(TASK_BYTES_MAX))).contains("most"));
        assert!(
            decode_task(Some("text/plain"), b"x")
                .unwrap_err()
                .to_string()
                .contains("text/plain")
        );
        assert!(
            decode_task(Some(MSGPACK), b"\xc1")
                .unwrap_err()
                .to_string()
                .contains("MessagePack")
        );
        assert!(
            decode_spec(br#"{"pause":true}"#)
                .unwrap_err()
                .to_string()
                .contains("paused")
        );
    }

    #[test]
    fn messagepack_is_one_value_that_json_could_say() {
        let refused = |bytes: &[u8]| decode_task(Some(MSGPACK), bytes).unwrap_err().to_string();
        let task = b"\x81\xa3run\xa1a";
        assert!(decode_task(Some(MSGPACK), task).is_ok());
        assert!(refused(&[&task[..], task].concat()).contains("7 bytes follow"));
        let mut record = encode(Wire::Msgpack, &serde_json::json!({"output": 1}));
        record.pop();
        let deep = |levels: usize| [&record[..], &vec![0x91; levels], &[0x90]].concat();
        assert!(value(Some(MSGPACK), &deep(120)).is_ok());
        assert!(value(Some(MSGPACK), &deep(200)).is_err());
    }

    #[test]
    fn errors_are_one_line_however_long_the_message() {
        let long = "x\n".repeat(100_000);
        for text in [
            serde_json::json!({"run": "a", &*long: 1}),
            serde_json::json!({"run": "a", "id": long}),
            serde_json::json!({"run": "a", "timeout": long}),
            serde_json::json!({"run": "a", "env": {&*long: 1}}),
            serde_json::json!({"run": "a", "env": {format!("{long}="): "1"}}),
            serde_json::json!({"run": "a", "v": long}),
        ] {
            let error = task_of(text).unwrap_err().to_string();
            assert!(
                !error.contains('\n') && error.chars().count() < 2000,
                "{error}"
            );
        }
    }

    #[test]
    fn edits_are_counted() {
        assert_eq!(edits("timeout", "time_out"), 1);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("needs", "needs"), 0);
    }
}
