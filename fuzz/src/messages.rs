//! Messages: tasks, records, specs, states of jobs and events.

use std::fmt::Debug;

use air_protocol::codec::{
    self, DecodeError, JSON, MSGPACK, content_type, decode_record, decode_spec, decode_state,
    decode_task,
};
use air_protocol::event::Event;
use air_protocol::limits::TASK_BYTES_MAX;
use air_protocol::spec::Wire;
use serde::Serialize;

use crate::truths::{comes_back, is_told_well};

const WIRES: [Wire; 2] = [Wire::Json, Wire::Msgpack];

/// What decodes comes back from each codec; what does not is told well.
fn decoded<T: PartialEq + Debug + Serialize>(
    value: Result<T, DecodeError>,
    decode: impl Fn(Wire, &[u8]) -> Result<T, DecodeError>,
    wires: &[Wire],
) {
    match value {
        Err(error) => is_told_well(&error),
        Ok(value) => {
            for &wire in wires {
                let bytes = codec::encode(wire, &value);
                comes_back(&value, decode(wire, &bytes));
            }
        }
    }
}

fn task(codec: &str, bytes: &[u8]) {
    let again = |wire, bytes: &[u8]| decode_task(Some(content_type(wire)), bytes);
    let task = decode_task(Some(codec), bytes);
    // What is just small enough may be too large with its defaults, or in the other codec.
    if bytes.len() <= TASK_BYTES_MAX / 8 {
        decoded(task, again, &WIRES);
    }
}

pub(crate) fn task_json(bytes: &[u8]) {
    task(JSON, bytes);
}

pub(crate) fn task_msgpack(bytes: &[u8]) {
    task(MSGPACK, bytes);
}

fn record(codec: &str, bytes: &[u8]) {
    let again = |wire, bytes: &[u8]| decode_record(Some(content_type(wire)), bytes);
    decoded(decode_record(Some(codec), bytes), again, &WIRES);
}

pub(crate) fn record_json(bytes: &[u8]) {
    record(JSON, bytes);
}

pub(crate) fn record_msgpack(bytes: &[u8]) {
    record(MSGPACK, bytes);
}

pub(crate) fn spec(bytes: &[u8]) {
    let again = |_, bytes: &[u8]| decode_spec(bytes);
    decoded(decode_spec(bytes), again, &[Wire::Json]);
}

pub(crate) fn state(bytes: &[u8]) {
    let again = |_, bytes: &[u8]| decode_state(bytes);
    decoded(decode_state(bytes), again, &[Wire::Json]);
}

pub(crate) fn event(bytes: &[u8]) {
    if let Ok(event) = serde_json::from_slice::<Event>(bytes) {
        let _ = event.known_kind();
        let again = codec::encode(Wire::Json, &event);
        comes_back(&event, serde_json::from_slice(&again));
    }
}
