//! Benchmarks on a real server with the real binaries, each beside fork and exec measured in the same run.
//!
//! `cargo xtask bench quick` builds what is measured and calls this. Machines differ and are noisy:
//! read the ratios. Nothing here fails because something is slow.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on panics"
)]

mod quick;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    runtime.block_on(quick::run());
}
