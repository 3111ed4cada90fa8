//! What whole-system tests stand on: a real nats-server of their own, managers, and ways to wait.
//!
//! [`Server`] is a server on a free port with a store of its own; [`Installation`] adds streams,
//! managers and the command line. Everything started here ends with the value that started it.
//! Tests never sleep: [`wait_for`] polls a condition, and panics with what it last saw.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

mod history;
mod installation;
mod process;
mod server;
mod wait;

pub use history::{check, check_no_process};
pub use installation::Installation;
pub use process::{Program, binary, ok, try_output};
pub use server::{Server, ServerOptions, nats_server};
pub use wait::{wait_for, wait_for_within};
