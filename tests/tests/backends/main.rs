//! Backends that need nothing but this machine stand the conformance suite. Containers do in `tests/containers`, Prefect does in
//! `tests/prefect`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

mod limits;
mod process;
mod webhook;
