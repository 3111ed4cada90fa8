//! What whole-system tests stand on: a real nats-server of their own, managers, and ways to wait.
//!
//! [`Server`] is a server on a free port with a store of its own; [`Installation`] adds streams,
//! managers and the command line; [`Agents`] one whose agents talk with a [`Standin`] of their service; [`Cluster`] is three machines, as far as namespaces make them. Everything started here ends with the value that started it.
//! Tests never sleep: [`wait_for`] polls a condition, and panics with what it last saw.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

mod agents;
mod clock;
mod cluster;
pub mod conformance;
mod history;
mod installation;
mod node;
mod process;
mod server;
mod servers;
mod standin;
mod wait;

pub use agents::{Agents, KEY, agents_place, claude};
pub use cluster::Cluster;
pub use history::{check, check_no_process, runners};
pub use installation::Installation;
pub use node::{Inside, Node};
pub use process::{Program, binary, number_of, ok, ok_with, pids, try_output};
pub use server::{Server, ServerOptions, nats_server};
pub use servers::Servers;
pub use standin::{Request, Standin, Step};
pub use wait::{HANGS, time_passes, wait_for, wait_for_within};
