//! What NATS hands back: stored messages with their headers, and heartbeats.

use air_nats::Entry;
use air_nats::direct::of_leader;
use air_nats::managers::heartbeat_of;
use air_nats::queue::Queued;
use air_protocol::codec;
use air_protocol::spec::Wire;
use air_protocol::time::Time;

use crate::truths::{comes_back, is_told_well};

pub(crate) fn heartbeat(bytes: &[u8]) {
    let read = |bytes: &[u8]| {
        heartbeat_of(&Entry {
            key: "m".to_owned(),
            value: Some(bytes.to_vec().into()),
            revision: 1,
            time: Time::default(),
        })
    };
    if let Some(heartbeat) = read(bytes) {
        let again = codec::encode(Wire::Json, &heartbeat);
        comes_back(&heartbeat, read(&again).ok_or("no heartbeat"));
    }
}

/// The leader's answer to a read by sequence: JSON, in it headers and payload in Base64.
pub(crate) fn stored(bytes: &[u8]) {
    let stored = match of_leader(bytes) {
        Err(error) => return is_told_well(&error),
        Ok(stored) => stored,
    };
    let queued = Queued::of_stored(&stored);
    assert_eq!(queued.seq, stored.seq);
    match queued.task {
        Err(invalid) => is_told_well(&invalid.reason),
        Ok(task) => assert_eq!(queued.id, task.id_at(stored.seq)),
    }
}
