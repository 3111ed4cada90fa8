//! Runs one task's program and its whole process tree, and ends it to the last process.
//!
//! Knows nothing of NATS, jobs or leases. Start at [`execute`]. The parts:
//! `launch` starts the program, `memory` says how much it may take, `reaper` does all waiting, `tree` ends what is left,
//! `output` carries the output away, [`workdir`] makes the files and the environment of the
//! contract. Linux only; `/proc` must be mounted.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use tokio::sync::{mpsc, oneshot, watch};

use launch::launch;
use output::Output;
use reaper::Main;
use tree::Tree;

mod launch;
mod memory;
mod output;
mod problem;
pub(crate) mod procfs;
mod reaper;
mod tree;
pub mod workdir;

pub use memory::Memory;
pub use problem::SpawnProblem;

/// Time that processes left behind by a program that has ended get between SIGTERM and SIGKILL.
pub const SURVIVORS_GRACE: Duration = Duration::from_secs(1);

/// What to run, and within which bounds.
#[derive(Clone, Debug)]
pub struct Program {
    /// Program and arguments. A name without `/` is looked up on the `PATH` of `env`. A shell
    /// line comes as `["/bin/sh", "-c", line]`.
    pub argv: Vec<OsString>,
    /// The complete environment: nothing of the runner's own is added.
    pub env: BTreeMap<OsString, OsString>,
    /// File that it reads as its standard input; nothing when absent.
    pub stdin: Option<PathBuf>,
    /// File that is made for its standard error, which else goes where its output goes.
    pub stderr: Option<PathBuf>,
    /// Working folder; must exist.
    pub cwd: PathBuf,
    /// Time after which the tree is ended; `None` = no limit.
    pub timeout: Option<Duration>,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Bytes of output handed on; the rest is read, counted and thrown away.
    pub output_bytes_max: u64,
    /// What limits its memory.
    pub memory: Memory,
}

/// Why somebody outside asks for the end of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The task was cancelled.
    Cancel,
    /// The runner no longer holds (or may no longer hold) the lease.
    LeaseLost,
}

/// How the program ended.
#[derive(Debug)]
pub enum End {
    /// It left with this exit code, 0 to 255.
    Exited(i32),
    /// A signal of this number ended it, without the runner's doing.
    Signalled(i32),
    /// It was ended because its time was over.
    TimedOut,
    /// It was ended because somebody asked for it; the last reason given.
    Stopped(Stop),
    /// It never ran.
    NotStarted(SpawnProblem),
}

/// What is known once no process of the program is left.
#[derive(Debug)]
pub struct Ended {
    /// How the program ended.
    pub end: End,
    /// Processor time of the tree (user and system), in milliseconds.
    pub cpu_ms: u64,
    /// Peak memory of the largest process of the tree, in KiB. The kernel counts the runner's
    /// own few MiB at the time of the start, so this is never less.
    pub max_rss_kb: u64,
    /// Its limit of memory in bytes, if the kernel killed one of its processes because it was reached.
    pub memory_exceeded: Option<u64>,
    /// The last 4 KiB of output, whether handed on or not.
    pub tail: Vec<u8>,
    /// Bytes of output in all, standard output and standard error together.
    pub output_bytes: u64,
    /// Those of `output_bytes` that were not handed on.
    pub output_dropped: u64,
}

/// Runs `program` until no process of it is left, and says how it ended.
///
/// Output goes to `chunks` in the order in which it was written, standard output and standard
/// error in one: at most 64 KiB a chunk, at latest 100 ms after its first byte, the last one
/// before this returns. A receiver that takes nothing for 5 s loses chunks (they count as
/// dropped); the program is never held up for longer.
///
/// Once `stop` holds a reason, or the time is over, the whole tree gets SIGTERM, and SIGKILL
/// after `grace`. What is left when the program itself has ended gets [`SURVIVORS_GRACE`].
/// A descendant that no signal of ours can end (another user's, or stuck in the kernel) is
/// waited for.
///
/// Takes over all waiting for children: the process that calls this makes itself subreaper
/// and must have no other children, nor run two of these at once. Needs a runtime with I/O
/// and time enabled. Dropping the future leaves the tree alone: await it to its end.
///
/// Source of the rules: the design's sections 5 (step 6) and 6.
pub async fn execute(
    program: Program,
    chunks: mpsc::Sender<Vec<u8>>,
    mut stop: watch::Receiver<Option<Stop>>,
) -> Ended {
    if let Some(reason) = *stop.borrow() {
        return Ended::without_a_run(End::Stopped(reason));
    }
    let cpu_ms_before = usage().0;
    let launched = match launch(&program) {
        Ok(launched) => launched,
        Err(problem) => return Ended::without_a_run(End::NotStarted(problem)),
    };
    let mut output = Output::new(launched.pipe, chunks, program.output_bytes_max);
    let mut tree = Tree::new(launched.child, launched.child_signals);
    let (all_gone, all_gone_seen) = oneshot::channel::<()>();
    let supervise = async {
        let end = supervise(&mut tree, &program, &mut stop).await;
        drop(all_gone);
        end
    };
    let (end, ()) = tokio::join!(supervise, output.pump(all_gone_seen));
    let (cpu_ms_after, max_rss_kb) = usage();
    Ended {
        end,
        cpu_ms: cpu_ms_after.saturating_sub(cpu_ms_before),
        max_rss_kb,
        memory_exceeded: program.memory.exceeded(),
        output_bytes: output.bytes(),
        output_dropped: output.dropped(),
        tail: output.into_tail(),
    }
}

/// Waits for the first reason to end the tree, and ends it.
async fn supervise(
    tree: &mut Tree,
    program: &Program,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> End {
    // In this order: a program that has ended in time has ended in time.
    let main = tokio::select! {
        biased;
        main = tree.main_ended() => Some(main),
        () = asked_to_stop(stop) => None,
        () = expired(program.timeout) => None,
    };
    let Some(main) = main else {
        let asked = stop.borrow().is_some();
        tree.end(program.grace).await;
        let reason = *stop.borrow();
        return match reason {
            Some(reason) if asked => End::Stopped(reason),
            _ => End::TimedOut,
        };
    };
    tree.end(program.grace.min(SURVIVORS_GRACE)).await;
    match main {
        Main::Exited(code) => End::Exited(code),
        Main::Signalled(number) => End::Signalled(number),
    }
}

/// Returns once `stop` holds a reason; never if its sender is gone.
async fn asked_to_stop(stop: &mut watch::Receiver<Option<Stop>>) {
    if stop.wait_for(Option::is_some).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Returns when `timeout` is over; never without one.
async fn expired(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

/// Processor time (ms) and peak memory (KiB) of the children that were waited for.
fn usage() -> (u64, u64) {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else {
        return (0, 0);
    };
    let ms = |time: nix::sys::time::TimeVal| time.tv_sec() * 1000 + time.tv_usec() / 1000;
    let cpu_ms = ms(usage.user_time()) + ms(usage.system_time());
    (
        u64::try_from(cpu_ms).unwrap_or(0),
        u64::try_from(usage.max_rss()).unwrap_or(0),
    )
}

impl Ended {
    /// For a program of which nothing ran.
    pub(crate) fn without_a_run(end: End) -> Self {
        Self {
            end,
            cpu_ms: 0,
            max_rss_kb: 0,
            memory_exceeded: None,
            tail: Vec::new(),
            output_bytes: 0,
            output_dropped: 0,
        }
    }
}
