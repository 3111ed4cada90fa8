//! `airx manager`: runs one manager until it is told to stop.

mod config;
mod reload;
mod section;

use std::path::{Path, PathBuf};
use std::time::Duration;

use air_manager::OnStop;
use air_protocol::limits::{POLL_DEFAULT, POLL_MAX, POLL_MIN};
use air_protocol::time::Span;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::App;
use crate::{Exit, Failure, logging};

/// Options of `airx manager`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "SIGTERM or Ctrl-C: it claims nothing more and ends; runners go on, unless --drain waits for them.\n\
    A second signal ends it at once. SIGHUP: it reads the limits in the file of --config anew.\n\
    AIR_LOG or RUST_LOG choose what is told on stderr, such as AIR_LOG=debug."
)]
pub struct Args {
    /// File with its backends and their limits (docs/backends.md)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What starts runners, in the order in which it is tried: names of backends in the file of --config [default: all in the file; process without one]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub backend: Vec<String>,
    /// Runners that it may have at once [default: twice the processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_runners: Option<u32>,
    /// Time between two looks at everything, 1s to 60s
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = poll)]
    pub poll: Span,
    /// Id of the manager, unlike that of any other [default: made of host and process id]
    #[arg(long)]
    pub id: Option<String>,
    /// The program air-runner [default: beside airx, or on the PATH]
    #[arg(long, value_name = "FILE")]
    pub runner: Option<PathBuf>,
    /// The server's sync_interval, 0 where it syncs always: consumed messages are deleted only after it
    #[arg(long, value_name = "TIME", default_value = "2m")]
    pub sync_interval: Span,
    /// When told to stop, wait for the runners
    #[arg(long)]
    pub drain: bool,
}

fn poll(text: &str) -> Result<Span, String> {
    let span: Span = text
        .parse()
        .map_err(|error: air_protocol::time::ParseTimeError| error.to_string())?;
    if (POLL_MIN..=POLL_MAX).contains(&span.0) {
        Ok(span)
    } else {
        Err(format!(
            "{} to {} are possible",
            Span(POLL_MIN),
            Span(POLL_MAX)
        ))
    }
}

/// Runs a manager.
///
/// # Errors
/// It cannot start.
pub async fn run(args: Args, app: &App) -> Result<Exit, Failure> {
    let (config, warnings) = match &args.config {
        Some(file) => config::read(file)?,
        None => (config::Config::default(), Vec::new()),
    };
    let backends = chosen(config.backends.clone(), &args.backend)?;
    let told = args.max_runners;
    let (limits, new_limits) = reload::listen(&args, &backends)?;
    let options = air_manager::Options {
        nats: app.options()?,
        id: args.id,
        runners_max: in_all(told, &config),
        backends,
        new_limits,
        poll: args.poll.0,
        runner: runner(args.runner)?,
        on_stop: if args.drain {
            OnStop::Drain
        } else {
            OnStop::Leave
        },
        sync_interval: args.sync_interval.0,
    };
    logging::start("warn,air_manager=info,air_nats=info,airx=info");
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let (stop, again) = (stop_signal()?, second_signal()?);
    tokio::select! {
        outcome = air_manager::run(options, stop) => outcome.map_err(failure)?,
        () = limits => {}
        () = again => return Err(Failure::Interrupted("ended at once at the second signal; runners go on".to_owned())),
    }
    Ok(Exit::Done)
}

/// Runners at once: the command line over the file.
fn in_all(told: Option<u32>, config: &config::Config) -> usize {
    match (told, config.max_runners) {
        (None, Some(number)) => number,
        _ => runners(told),
    }
}

/// The backends that `names` ask for, in that order; all where none is named.
fn chosen(
    backends: Vec<air_manager::BackendOptions>,
    names: &[String],
) -> Result<Vec<air_manager::BackendOptions>, Failure> {
    if names.is_empty() {
        return Ok(backends);
    }
    let find = |name: &String| {
        let found = backends.iter().find(|one| one.name == *name);
        found.cloned().ok_or_else(|| {
            let known: Vec<&str> = backends.iter().map(|one| one.name.as_str()).collect();
            Failure::Usage(format!(
                "--backend: there is no backend `{name}`; those of the configuration are {}",
                known.join(", ")
            ))
        })
    };
    names.iter().map(find).collect()
}

/// The failure of a manager.
pub fn failure(error: air_manager::Error) -> Failure {
    use air_manager::Error;
    match error {
        Error::Connect(error) => Failure::Connect(error),
        Error::Topology(error) => Failure::Topology(error),
        Error::Nats(error) => error.into(),
        error @ Error::Missing(_) => Failure::Missing(error.to_string()),
        error @ (Error::NoRunners
        | Error::NoBackend
        | Error::Twice(_)
        | Error::BackendName(_)
        | Error::Backend { .. }
        | Error::Poll(_)
        | Error::Id(_)) => Failure::Usage(error.to_string()),
    }
}

/// The time between two looks at everything, unless told otherwise.
pub const POLL: Duration = POLL_DEFAULT;

/// Runners at once: as told, or twice the processors.
pub fn runners(told: Option<u32>) -> usize {
    match told {
        Some(number) => usize::try_from(number).unwrap_or(usize::MAX),
        None => std::thread::available_parallelism().map_or(2, |number| 2 * number.get()),
    }
}

/// The program `air-runner`: as told, beside this program, or on the PATH.
///
/// # Errors
/// It is nowhere.
pub fn runner(told: Option<PathBuf>) -> Result<PathBuf, Failure> {
    if let Some(path) = told {
        return if path.is_file() {
            Ok(path)
        } else {
            Err(Failure::NotFound(format!(
                "--runner: there is no file {}",
                path.display()
            )))
        };
    }
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join("air-runner")));
    beside
        .filter(|path| path.is_file())
        .or_else(|| on_path("air-runner"))
        .ok_or_else(|| {
            Failure::NotFound(
                "the program air-runner is neither beside airx nor on the PATH; build it with `cargo build --package air-runner`, or name it with --runner"
                    .to_owned(),
            )
        })
}

/// A program on the PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|file| is_program(file))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Becomes ready at SIGINT or SIGTERM.
///
/// # Errors
/// Signals cannot be had.
pub fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    let mut signals = Signals::new()?;
    Ok(async move { signals.next().await })
}

/// Becomes ready at the second SIGINT or SIGTERM.
fn second_signal() -> Result<impl Future<Output = ()>, Failure> {
    let mut signals = Signals::new()?;
    Ok(async move {
        signals.next().await;
        signals.next().await;
    })
}

/// The signals by which a program is told to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(Failure::io("listen to signals"));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
