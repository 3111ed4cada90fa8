//! Tasks of the kind `claude`: the real CLI against the stand-in of its service.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

mod cli;
