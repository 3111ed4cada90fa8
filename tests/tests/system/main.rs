//! The whole path on real servers: published by any client, run by managers and runners, read back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

mod mcp;
mod needs;
mod path;
mod people;
mod replicas;
mod retention;
mod retries;
mod scale;
mod subtasks;
mod verbs;
