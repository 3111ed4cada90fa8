//! `airx dev`: a NATS server and a manager on this machine, with all state in one folder.

mod find;
mod server;

use std::path::PathBuf;
use std::time::Duration;

use air_manager::OnStop;
use air_nats::{Nats, Options};

use crate::app::App;
use crate::verbs::{init, manager};
use crate::{Exit, Failure, logging};
use server::Server;

/// Options of `airx dev`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Ctrl-C or SIGTERM ends the runners, which hand their tasks back, then the manager, then the server;\n\
    started again on the same folder, all jobs go on."
)]
pub struct Args {
    /// Folder for all state
    #[arg(long, default_value = "air-data")]
    pub dir: PathBuf,
    /// Port of the server on 127.0.0.1; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 4222)]
    pub port: u16,
    /// Runners at once [default: twice the processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_runners: Option<u32>,
    /// The program nats-server [default: $AIR_NATS_SERVER, the PATH, target/tools]
    #[arg(long, value_name = "FILE")]
    pub nats_server: Option<PathBuf>,
    /// The program air-runner [default: beside airx, or on the PATH]
    #[arg(long, value_name = "FILE")]
    pub runner: Option<PathBuf>,
}

/// Runs both until told to stop.
///
/// # Errors
/// One of them cannot start, or the server ended by itself.
pub async fn run(args: Args, app: &App) -> Result<Exit, Failure> {
    let stop = manager::stop_signal()?;
    tokio::pin!(stop);
    let runner = manager::runner(args.runner)?;
    let program = find::nats_server(args.nats_server)?;
    logging::start("warn,air_manager=info,air_nats=error");
    let mut server = Server::start(app, &program, &args.dir, args.port).await?;
    let url = tokio::select! {
        url = server.url() => url?,
        () = &mut stop => {
            server.stop().await;
            return Ok(Exit::Done);
        }
    };
    let nats = Options {
        url: Some(url.clone()),
        names: app.options()?.names,
        ..Options::default()
    };
    let outcome = match prepare(&nats, app).await {
        Ok(connection) => {
            let options = air_manager::Options {
                nats,
                id: None,
                backends: vec![air_manager::BackendOptions::process()],
                new_limits: None,
                runners_max: manager::runners(args.max_runners),
                poll: manager::POLL,
                runner,
                on_stop: OnStop::HandBack,
                sync_interval: Duration::ZERO,
            };
            let ready = async {
                first_heartbeat(&connection).await;
                banner(app, &url, &args.dir);
            };
            work(options, &mut server, ready, stop).await
        }
        Err(failure) => Err(failure),
    };
    server.stop().await;
    outcome.map(|()| Exit::Done)
}

/// Time in which the end of the server is seen after the manager has failed.
const END_WITHIN: Duration = Duration::from_secs(1);

/// Runs the manager until told to stop, or until the server ends: without it the manager could only wait.
/// Meanwhile `ready` waits for it, and says so.
async fn work(
    options: air_manager::Options,
    server: &mut Server,
    ready: impl Future<Output = ()>,
    stop: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let ready = async {
        ready.await;
        std::future::pending::<()>().await;
    };
    let failed = tokio::select! {
        outcome = air_manager::run(options, stop) => match outcome {
            Ok(()) => return Ok(()),
            Err(error) => error,
        },
        failure = server.ended() => return Err(failure),
        () = ready => return Ok(()),
    };
    // Where the server has ended, that is why the manager failed.
    match tokio::time::timeout(END_WITHIN, server.ended()).await {
        Ok(failure) => Err(failure),
        Err(_) => Err(manager::failure(failed)),
    }
}

/// Time between two looks for the first heartbeat.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until the manager is heard of: whoever submits before is told that none runs.
async fn first_heartbeat(nats: &Nats) {
    while !matches!(nats.managers().await, Ok(managers) if !managers.is_empty()) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn prepare(options: &Options, app: &App) -> Result<Nats, Failure> {
    let nats = Nats::connect(options, "airx dev").await?;
    for one in nats.init(None, true).await? {
        let mend = init::mend(&one);
        if !mend.is_empty() {
            app.console
                .warn(format_args!("{} is not as it should be; {mend}", one.name));
        }
    }
    Ok(nats)
}

fn banner(app: &App, url: &str, dir: &std::path::Path) {
    let bold = |text: &str| {
        if app.console.colour_err {
            format!("\x1b[1m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    };
    app.console.note(format_args!(
        "{} NATS at {url}, state in {}; Ctrl-C ends it\n\n  {}\n\n  airx submit hello --wait -- echo hi\n  airx logs hello\n  airx status --watch\n",
        bold("airx dev:"),
        dir.display(),
        bold(&format!("export NATS_URL={url}")),
    ));
}
