//! `air-runner`: reads its environment, runs one task, and tells by its exit code how it ended.
//!
//! Called as `airx` (by the link on a task's `PATH`), or with `task` first, it is `airx task add`.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use air_runner::{Exit, Options, gate, link, task_add};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let called = arguments.next();
    let arguments: Vec<OsString> = arguments.collect();
    match arguments.split_first() {
        Some((first, rest)) if first == "task" => return task_add::main(rest).into(),
        _ if link::is_called(called.as_deref()) => {
            eprintln!("airx: {}", link::become_next(&arguments));
            return link::EXIT_NOT_FOUND.into();
        }
        Some(_) => {
            eprintln!(
                "air-runner takes no arguments but `task add`: it is configured by its environment, \
                 and started by a manager (`airx manager`)"
            );
            return Exit::Usage.into();
        }
        None => {}
    }
    log();
    if !gate::pass() {
        eprintln!("air-runner: the manager did not put this runner in its place; nothing has run");
        return Exit::Unavailable.into();
    }
    match Options::from_env(|name| std::env::var(name).ok()) {
        Ok(options) => run(options).into(),
        Err(error) => {
            eprintln!("air-runner: {error}");
            Exit::Usage.into()
        }
    }
}

fn log() {
    let wanted = std::env::var("AIR_LOG").ok();
    let filter = wanted.and_then(|text| text.parse::<Targets>().ok());
    let filter = filter.unwrap_or_else(|| Targets::new().with_default(LevelFilter::WARN));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false);
    tracing_subscriber::registry()
        .with(lines)
        .with(filter)
        .init();
}

fn run(options: Options) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(async {
            // Listens from here on: a signal in between is not lost.
            let signals = (
                signal(SignalKind::terminate()),
                signal(SignalKind::interrupt()),
            );
            air_runner::run(options, asked_to_end(signals)).await
        }),
        Err(error) => {
            eprintln!("air-runner: the host gives no runtime: {error}");
            Exit::Unavailable
        }
    }
}

/// Resolves at SIGTERM or SIGINT.
async fn asked_to_end(signals: (io::Result<Signal>, io::Result<Signal>)) {
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        tracing::warn!("no signals can be received");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
