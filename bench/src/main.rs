//! Benchmarks on a real server with the real binaries, each beside fork and exec measured in the same run.
//!
//! `cargo xtask bench` builds what is measured and calls this. Machines differ and are noisy: read
//! the ratios. Nothing here fails because something is slow.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on panics"
)]

mod fanout;
mod quick;

/// Sub-tasks of the fan-out, unless told otherwise.
const FANOUT: usize = 100_000;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("fanout") => {
            let count = arguments
                .next()
                .map_or(FANOUT, |text| text.parse().expect("a number of sub-tasks"));
            runtime.block_on(fanout::run(count));
        }
        _ => runtime.block_on(quick::run()),
    }
}
