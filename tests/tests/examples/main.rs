//! The programs in `examples/`, run for real: the same small client in five languages, against a server and a manager.
//!
//! One function says what all of them must do and print, so that none does it differently. What a client needs is
//! installed once by its own package manager into `target/examples/` (see `install.rs`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

mod clients;
mod install;
