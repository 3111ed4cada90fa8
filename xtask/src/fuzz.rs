//! `cargo xtask fuzz`: the long form of fuzzing, and one table of what was tried.
//!
//! It builds the program `air-fuzz` with the counters by which libFuzzer sees which code an input reaches (they are
//! an option of the compiler, and need no other toolchain), and runs it once for each target. The targets are the
//! folders of `fuzz/corpus`. The bounded form is an ordinary test of the crate `air-fuzz`.

mod run;
mod table;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::error::{Error, Result};
use crate::{command, workspace};
use table::Row;

/// What makes the compiler count edges, as libFuzzer wants it.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table";

/// How much is tried.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Inputs for each target
    #[arg(long, default_value_t = 500_000)]
    inputs: u64,
    /// Only the targets whose name has this in it, such as `yaml`
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Targets at once; as many as there are processors unless told
    #[arg(long)]
    jobs: Option<usize>,
    /// Afterwards, make the corpus in `fuzz/corpus` anew: inputs that people have named stay, others are chosen again
    #[arg(long)]
    keep: bool,
}

/// Where things are, and what each run gets.
struct Place {
    program: PathBuf,
    /// The corpus of the repository.
    corpus: PathBuf,
    /// Below `target`: inputs that reached new code, and those that showed a fault.
    work: PathBuf,
}

/// Builds, runs every target, prints the table.
///
/// # Errors
/// It cannot be built, or a target has a fault.
pub(crate) fn run(options: &Options) -> Result<()> {
    let place = build()?;
    let targets = targets(&place.corpus, options.only.as_deref())?;
    let jobs = options
        .jobs
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let waiting = Mutex::new(targets.iter());
    let next = || waiting.lock().map_or(None, |mut waiting| waiting.next());
    let rows = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(target) = next() {
                    eprintln!("{target} …");
                    let row = run::target(&place, target, options.inputs);
                    if let Ok(mut rows) = rows.lock() {
                        rows.push(row);
                    }
                }
            });
        }
    });
    let rows = rows.into_inner().unwrap_or_default();
    let mut rows = rows.into_iter().collect::<Result<Vec<Row>>>()?;
    rows.sort_by(|a, b| a.target.cmp(&b.target));
    print!("{}", table::of(&rows));
    let faults: Vec<_> = rows.iter().filter_map(Row::told).collect();
    if !faults.is_empty() {
        return Err(Error::Fuzz(format!(
            "{} targets have a fault; mend each, and put its input into fuzz/corpus\n{}",
            faults.len(),
            faults.join("\n")
        )));
    }
    if options.keep {
        targets
            .iter()
            .try_for_each(|target| run::keep(&place, target))?;
    }
    Ok(())
}

/// The program with counters, in a folder of its own: other builds need not start anew after it.
fn build() -> Result<Place> {
    let host = host()?;
    let work = workspace::target()?.join("fuzz");
    // With a target named, build scripts and macros are built without counters.
    let mut build =
        command::cargo("build -p air-fuzz --features libfuzzer --bin air-fuzz --profile fuzz");
    build.args(["--target", &host, "--target-dir"]).arg(&work);
    command::run(build.env("RUSTFLAGS", COVERAGE))?;
    Ok(Place {
        program: work.join(&host).join("fuzz").join("air-fuzz"),
        corpus: workspace::root().join("fuzz").join("corpus"),
        work,
    })
}

fn host() -> Result<String> {
    let answer = command::capture(
        Command::new("rustc")
            .arg("-vV")
            .current_dir(workspace::root()),
    )?;
    let host = answer.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.ok_or_else(|| Error::Answer {
        command: "rustc -vV".to_owned(),
        what: "no host".to_owned(),
    })?;
    Ok(host.to_owned())
}

fn targets(corpus: &Path, only: Option<&str>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for folder in std::fs::read_dir(corpus).map_err(Error::file(corpus))? {
        let folder = folder.map_err(Error::file(corpus))?;
        names.push(folder.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| only.is_none_or(|only| name.contains(only)));
    names.sort();
    if names.is_empty() {
        return Err(Error::Fuzz(format!(
            "no target has `{}` in its name; they are the folders of {}",
            only.unwrap_or_default(),
            corpus.display()
        )));
    }
    Ok(names)
}
