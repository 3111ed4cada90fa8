//! The command line as a person runs it: help texts, output and exit codes, on real servers.
//!
//! What the verbs do together with managers is tested in `tests/`; here nothing needs one. Start at [`world`].

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod control;
mod dev;
mod help;
mod look;
mod mcp;
mod offline;
mod spec;
mod submit;
mod world;
