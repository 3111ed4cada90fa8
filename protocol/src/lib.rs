//! The protocol of Air-Executor: names, messages, codec, state machine, invariants and limits.
//!
//! Everything here is a value or a pure function. There is no clock, no randomness, no I/O and no
//! NATS: times and identifiers come in as arguments. Start at [`job`] for the state machine of a
//! job, at [`task`] for what a user publishes, at [`record`] for what a runner commits.

pub mod agent;
pub mod approval;
pub mod budget;
pub mod claude;
pub mod codec;
pub mod cost;
pub mod event;
pub mod fate;
pub mod invariants;
pub mod job;
pub mod lease;
pub mod ledger;
pub mod limits;
pub mod names;
pub mod quote;
pub mod record;
pub mod resources;
pub mod spec;
pub mod task;
pub mod time;
pub mod verify;

/// The version of messages and keys that this build writes; a newer one is refused, never guessed at.
pub const VERSION: u8 = 1;
