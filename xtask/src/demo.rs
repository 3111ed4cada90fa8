//! `cargo xtask demo [PATH]`: audits a source tree with the whole system, on this machine, in one command.
//!
//! It builds the release binaries, starts `airx dev` in a fresh folder, submits the first task of the audit
//! (`examples/audit`), which queues all others, shows how they go, and ends with their report. Everything that is shown
//! comes from `airx … -o json`, so anybody can ask for the same. What it starts is ended with it, however it ends.

mod progress;
mod sample;
mod system;
mod tally;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::{command, tools, workspace};
use progress::Progress;
use sample::Sample;
use system::System;
use tally::Tally;

/// Jobs over which the audit spreads its folders and files.
const JOBS: u32 = 8;
/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(250);
/// Time without any progress after which something is wrong.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// Options of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The tree to audit [default: this repository]
    path: Option<PathBuf>,
    /// Where the report goes [default: target/demo/report.md]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Leave the server and the manager running at the end, to look around
    #[arg(long)]
    keep: bool,
}

/// Builds, runs the audit, shows its report and what it took.
///
/// # Errors
/// The report is not complete, a task is not accounted for, or something cannot be started.
pub(crate) fn run(options: &Options) -> Result<()> {
    let tree = options.path.clone().unwrap_or_else(workspace::root);
    let tree = tree.canonicalize().map_err(Error::file(&tree))?;
    if !tree.is_dir() {
        let what = format!("{} is no folder; name the tree to audit", tree.display());
        return Err(Error::Demo(what));
    }
    let server = tools::nats_server()?;
    eprintln!("building airx, air-runner and the audit (the first time takes some minutes)");
    command::run(&mut command::cargo(
        "build --release --package airx --package air-runner --package air-audit",
    ))?;
    let target = workspace::target()?;
    let folder = target.join("demo");
    std::fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
    let out = options.out.clone();
    let out = out.unwrap_or_else(|| folder.join("report.md"));
    let bin = target.join("release");
    let system = System::start(&bin.join("airx"), &server, &folder)?;
    let done = audit(&system, &bin.join("air-audit"), &tree);
    let done = done.and_then(|audited| finish(&audited, &out));
    if done.is_ok() {
        look_around(&system, options.keep);
    }
    if options.keep && done.is_ok() {
        system.keep()?;
    } else {
        system.end();
    }
    done
}

/// What is known of an audit that is over.
struct Audited {
    report: Value,
    tally: Tally,
    took: Duration,
}

fn audit(system: &System, program: &Path, tree: &Path) -> Result<Audited> {
    let mut submit = system.airx(&["submit", "audit", "--id", "plan"]);
    submit.arg("--cwd").arg(tree);
    submit.args(["--input", &format!("{{\"jobs\":{JOBS}}}"), "--"]);
    command::capture(submit.arg(program).arg("plan"))?;
    let begun = Instant::now();
    let sample = follow(system, tree, begun)?;
    let took = begun.elapsed();
    let report = system.json(&["show", "audit", "report"])?;
    let exports = sample.jobs.iter();
    let exports = exports.map(|job| system.json(&["export", &job.name]));
    let tally = Tally::of(&exports.collect::<Result<Vec<_>>>()?)?;
    Ok(Audited {
        report: report["output"].clone(),
        tally,
        took,
    })
}

/// Shows how the audit goes until it is over.
fn follow(system: &System, tree: &Path, begun: Instant) -> Result<Sample> {
    let mut progress = Progress::new(tree, begun);
    let (mut finished, mut moved) = (0, Instant::now());
    loop {
        let sample = Sample::of(&system.json(&["status"])?)?;
        if sample.is_over() {
            progress.end(&sample);
            return Ok(sample);
        }
        if let Some(problem) = sample.problem() {
            return Err(Error::Demo(format!("{problem}; {}", system.log_is())));
        }
        if sample.finished() > finished {
            (finished, moved) = (sample.finished(), Instant::now());
        }
        if moved.elapsed() > STUCK_AFTER {
            progress.end(&sample);
            let what = format!("no task has ended for {} s", STUCK_AFTER.as_secs());
            return Err(Error::Demo(format!("{what}; {}", system.log_is())));
        }
        progress.show(&sample);
        std::thread::sleep(PAUSE);
    }
}

/// Prints and writes the report, prints what it took, and says whether all is as it should be.
fn finish(audited: &Audited, out: &Path) -> Result<()> {
    let text = audited.report["text"].as_str();
    let text = text.ok_or_else(|| Error::Demo("the last task has left no report".into()))?;
    std::fs::write(out, text).map_err(Error::file(out))?;
    println!("\n{text}");
    println!("{}", audited.tally.table(audited.took));
    println!("\nThe report is in {}", out.display());
    audited.tally.check()?;
    if audited.report["complete"] != true {
        let what = "the report is not complete: the tree changed while it was read";
        return Err(Error::Demo(what.into()));
    }
    Ok(())
}

/// Says which commands show the same.
fn look_around(system: &System, goes_on: bool) {
    let airx = system.program().display();
    let (head, url) = if goes_on {
        (
            "The server goes on. The same, and more, is shown by",
            system.url(),
        )
    } else {
        let head = "With --keep the server goes on at an address that is told, and the same, and more, is shown by";
        (head, "nats://127.0.0.1:PORT")
    };
    println!(
        "
{head}
  export NATS_URL={url}
  {airx} status                 # all jobs
  {airx} tasks audit-1          # its tasks
  {airx} show audit report      # a task, its attempts and its result
  {airx} logs audit report      # what it printed
  nats kv get air-jobs audit-1 --raw          # the state of a job
  nats stream subjects AIR                    # where each record is
  nats stream get AIR --last-for air.results.audit.report
`cargo xtask tools nats` finds or installs the command nats."
    );
    if goes_on {
        println!("To end it: kill {}", system.pid());
    }
}
