//! The life of a runner, step by step: start, look, run, commit, release.

use std::pin::pin;
use std::time::Duration;

use air_nats::{Error, Nats};
use air_protocol::approval::{Waits, needs_approval};
use air_protocol::budget::Taken;
use air_protocol::cost::Cost;
use air_protocol::event::Kind;
use air_protocol::fate::Outcome;
use air_protocol::names::TaskId;
use air_protocol::record::Status;
use air_protocol::task::{Task, Work};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::brake::Why;
use crate::claude;
use crate::clock;
use crate::compose;
use crate::execute::workdir::Workdir;
use crate::execute::{Ended, execute};
use crate::exit::Exit;
use crate::fanout;
use crate::guard::{expiry, guard};
use crate::hold::Hold;
use crate::judge::{Report, asked, judge};
use crate::key;
use crate::logs::{self, Log};
use crate::look::look;
use crate::options::Options;
use crate::record::Attempt;
use crate::settle::{Finish, forget_blobs, over, settle};
use crate::spend;
use crate::subtasks::{self, Parent};

/// Time that the last events get to leave.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Runs the task of one claim. When `shutdown` resolves the task is ended, and queued to run again.
///
/// The process must have no other children, and nothing else may run on this thread for long: see
/// [`execute`].
pub async fn run(options: Options, shutdown: impl Future<Output = ()>) -> Exit {
    let nats = match Nats::connect(&options.nats, "air-runner").await {
        Ok(nats) => nats,
        Err(error) => {
            tracing::error!("{error}");
            return Exit::Unavailable;
        }
    };
    let exit = live(&nats, &options, shutdown).await;
    // Nothing but events can be on its way.
    if timeout(FLUSH_MAX, nats.flush()).await.is_err() {
        tracing::debug!("the last events are lost");
    }
    exit.unwrap_or_else(|error| {
        tracing::error!("failed to run a task: {error}");
        Exit::Broken
    })
}

async fn live(
    nats: &Nats,
    options: &Options,
    shutdown: impl Future<Output = ()>,
) -> Result<Exit, Error> {
    let host = nix::unistd::gethostname().unwrap_or_default();
    let host = host.to_string_lossy().into_owned();
    let mut shutdown = pin!(shutdown);
    let held = tokio::select! {
        biased;
        () = &mut shutdown => return Ok(Exit::Broken),
        held = timeout(options.claim.start_within(), Hold::start(nats, &options.claim, host)) => held,
    };
    let Ok(held) = held else {
        tracing::error!("NATS did not let this runner start in time");
        return Ok(Exit::Broken);
    };
    let Some(hold) = held? else {
        tracing::info!("the claim is not ours");
        return Ok(Exit::NotOurs);
    };
    // Removed last, when nobody waits for us any more.
    let mut left = Left::default();
    let drain = async {
        shutdown.await;
        hold.brake.pull(Why::Drain);
        std::future::pending::<()>().await;
    };
    let finish = tokio::select! {
        biased;
        finish = work(&hold, &options.backend, &mut left) => finish?,
        never = guard(&hold) => match never {},
        () = drain => Finish::LOST,
    };
    let exit = match finish {
        Finish::Leave(exit) => Ok(exit),
        Finish::Release {
            record,
            exit,
            status,
        } => {
            if status.is_none() {
                // Whatever it did, no record of its own says it.
                let taken = match exit {
                    Exit::Over => Taken::Whole {
                        cost: Cost::default(),
                        over: false,
                    },
                    _ => Taken::Nothing,
                };
                spend::end(&hold, taken).await;
            }
            tokio::select! {
                biased;
                released = hold.release(record) => released.map(|()| exit),
                () = expiry(&hold) => Ok(Exit::Broken),
            }
        }
    };
    if left.is_tree_over {
        claude::space::remove(&hold).await;
    }
    exit
}

/// What an attempt leaves on the host.
#[derive(Default)]
struct Left {
    /// The task's own temporary folder, which goes with this value.
    workdir: Option<Workdir>,
    /// There is a working tree, and nobody goes on in it.
    is_tree_over: bool,
}

/// Everything between start and release.
async fn work(hold: &Hold, backend: &str, left: &mut Left) -> Result<Finish, Error> {
    let Some(looked) = hold.unless_lost(look(hold)).await else {
        return Ok(Finish::LOST);
    };
    let found = match looked? {
        Ok(found) => found,
        Err(record) => {
            tracing::info!("the message is gone or the task's record has changed");
            return Ok(Finish::Release {
                record,
                status: None,
                exit: Exit::Stale,
            });
        }
    };
    if hold.remaining().is_zero() {
        return Ok(Finish::LOST);
    }
    let Some(begun) = hold.unless_lost(spend::begin(hold)).await else {
        return Ok(Finish::LOST);
    };
    let Some(limits) = begun? else {
        tracing::info!("nothing is reserved for this run any more");
        return Ok(Finish::Release {
            record: hold.target.expected,
            status: None,
            exit: Exit::Stale,
        });
    };
    let attempt = Attempt {
        hold,
        found: &found,
        backend,
        limits,
    };
    let task = match &found.queued.task {
        Ok(task) => task,
        Err(invalid) => {
            let report = Report {
                tail: Some(invalid.head.clone()),
                ..Report::new(Outcome::FailedForGood)
            };
            let report = report.instead(Outcome::FailedForGood, &invalid.reason);
            return settle(&attempt, report).await;
        }
    };
    // The manager may not have heard yet of a rule that was in force before its claim.
    let last = found.last.as_ref().map(|(_, last)| last);
    if let Some(reason) = needs_approval(task, &found.spec, last) {
        let mut report = Report::new(Outcome::Parked);
        report.waits = Some(Waits::Approval { reason });
        return settle(&attempt, report).await;
    }
    hold.nats.emit(Kind::Started, hold.event_data()).await;
    if let Work::Claude(_) = task.work
        && let Some(report) = key::held_back(&hold.nats, clock::now()).await
    {
        return settle(&attempt, report).await;
    }
    match &task.work {
        Work::Fanout(page) => fanout::run(&attempt, page).await,
        Work::Run(_) | Work::Exec(_) | Work::Claude(_) => run_program(&attempt, task, left).await,
    }
}

async fn run_program(attempt: &Attempt<'_>, task: &Task, left: &mut Left) -> Result<Finish, Error> {
    let hold = attempt.hold;
    let Some(needs) = hold.unless_lost(compose::needs(hold, task)).await else {
        return Ok(Finish::LOST);
    };
    let made = needs
        .map_err(|error| format!("what the task needs cannot be read: {error}"))
        .and_then(|needs| {
            let replies = compose::replies(attempt.found);
            Workdir::create(&hold.runner.to_string(), &compose::input(task), &needs)
                .and_then(|dir| std::fs::write(dir.replies(), replies).map(|()| dir))
                .map_err(|error| format!("the host cannot make the working folder: {error}"))
        });
    let workdir = match made {
        Ok(workdir) => &*left.workdir.insert(workdir),
        Err(text) => {
            let report = Report::new(Outcome::Failed).instead(Outcome::Failed, &text);
            return settle(attempt, report).await;
        }
    };
    let report = match &task.work {
        Work::Claude(claude) => claude::run(attempt, task, claude, workdir).await,
        Work::Run(_) | Work::Exec(_) | Work::Fanout(_) => judged(attempt, task, workdir).await,
    };
    let has_tree = matches!(&task.work, Work::Claude(claude) if claude.workspace.is_some());
    match report {
        Some(report) => {
            let Some(report) = hold
                .unless_lost(with_subtasks(attempt, workdir, report))
                .await
            else {
                return Ok(Finish::LOST);
            };
            let finish = settle(attempt, report).await?;
            if let (Work::Claude(_), Finish::Release { status, .. }) = (&task.work, finish) {
                left.is_tree_over = has_tree && status.is_some_and(Status::is_final);
                if status == Some(Status::Succeeded) {
                    claude::forget(hold, has_tree).await;
                }
            }
            Ok(finish)
        }
        None if hold.brake.why() == Some(Why::Over) => {
            left.is_tree_over = has_tree;
            over(hold).await
        }
        None => Ok(Finish::LOST),
    }
}

/// Runs the program to its end; none where the attempt is not ours to settle.
async fn judged(attempt: &Attempt<'_>, task: &Task, workdir: &Workdir) -> Option<Report> {
    let started = clock::now();
    let ended = run_logged(attempt, task, workdir).await?;
    let why = attempt.hold.brake.why();
    let report = judge(ended, why, workdir, started, clock::now())?;
    Some(asked(report, workdir, attempt.found.replies()))
}

/// Runs the program until no process of it is left and its log is stored; none when the lease is lost.
async fn run_logged(attempt: &Attempt<'_>, task: &Task, workdir: &Workdir) -> Option<Ended> {
    let hold = attempt.hold;
    let target = &hold.target;
    let program = compose::program(hold, attempt.found, task, workdir);
    let writer = (hold.nats).log_writer(&hold.job, &target.task, target.attempt, hold.runner);
    let mut log = Log::new(writer);
    let (chunks, output) = mpsc::channel(logs::WAITING_MAX);
    let (ended, _) = tokio::join!(
        execute(program, chunks, hold.brake.stop()),
        hold.unless_lost(log.carry(output)),
    );
    hold.unless_lost(log.finish(ended.output_dropped)).await?;
    Some(ended)
}

/// Adds the sub-tasks, which only an attempt that succeeded has.
async fn with_subtasks(attempt: &Attempt<'_>, workdir: &Workdir, mut report: Report) -> Report {
    if report.outcome != Outcome::Succeeded {
        return report;
    }
    let task: &TaskId = &attempt.hold.target.task;
    let leash = attempt.found.below();
    let parent = Parent {
        job: &attempt.hold.job,
        task,
        leash: &leash,
        traceparent: attempt.found.queued.traceparent.as_deref(),
        wire: attempt.found.spec.wire,
    };
    let mut family = match subtasks::read(&workdir.tasks(), parent).await {
        Ok(family) => family,
        Err(text) => return report.instead(Outcome::FailedForGood, &text),
    };
    match fanout::store_rest(attempt, parent, workdir, &mut family).await {
        Ok(()) => {
            report.family = family;
            report
        }
        Err(text) => {
            forget_blobs(attempt.hold).await;
            report.instead(Outcome::Failed, &text)
        }
    }
}
