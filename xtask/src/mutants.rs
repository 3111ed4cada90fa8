//! `cargo xtask mutants`: changes the decisions of the product one place at a time, and sees that a fast test fails.
//!
//! What is mutated, and what is left out and why, stands in `.cargo/mutants.toml`. A mutant that no test notices must
//! stand in [`survivors`], with the reason. Start at [`run`].

mod survivors;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use clap::Args;

use crate::error::{Error, Result};
use crate::{command, tools, workspace};
use survivors::{Key, Listed};

/// What is mutated, and what is not.
const CONFIG: &str = ".cargo/mutants.toml";
/// Modules of `protocol` that only judge what has happened; `--long` mutates them too.
const CHECKERS: [&str; 2] = ["protocol/src/invariants", "protocol/src/verify"];
/// Cases of each property test for one mutant: what they find, they find soon.
const PROPTEST_CASES: &str = "48";
/// Seconds for the tests of one mutant: they take two alone, and a false time-out would count as caught.
const TIMEOUT: &str = "60";
/// Exit codes of cargo-mutants for a run that came to its end: nothing missed, some missed, some timed out.
const ENDED: [i32; 3] = [0, 2, 3];

/// How the mutants are run.
#[derive(Args)]
pub(crate) struct Options {
    /// Also the invariants and `verify`, which judge histories and decide nothing
    #[arg(long)]
    long: bool,
    /// Only mutants of these files, for example `manager/src/decide.rs`
    #[arg(long, value_name = "GLOB")]
    only: Option<String>,
    /// Only one of N parts, for example `0/4`
    #[arg(long, value_name = "K/N")]
    shard: Option<String>,
    /// Mutants tested at the same time
    #[arg(long, default_value = "1")]
    jobs: u32,
}

/// Runs them, counts them, and compares those that survived with the list.
pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = workspace::target()?.join("mutants");
    std::fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
    let mut mutants = command::in_root(tools::cargo_mutants()?);
    mutants.args(["mutants", "--workspace", "--no-times", "--timeout", TIMEOUT]);
    mutants
        .args(["--jobs", &options.jobs.to_string(), "--output"])
        .arg(&folder);
    if !options.long {
        for module in CHECKERS {
            let (file, folder) = (format!("{module}.rs"), format!("{module}/**"));
            mutants.args(["--exclude", &file, "--exclude", &folder]);
        }
    }
    if let Some(only) = &options.only {
        let path = workspace::root().join(CONFIG);
        let text = std::fs::read_to_string(&path).map_err(Error::file(&path))?;
        let narrow = folder.join("only.toml");
        std::fs::write(&narrow, narrowed(&text, only)).map_err(Error::file(&narrow))?;
        mutants.arg("--config").arg(narrow);
    }
    if let Some(shard) = &options.shard {
        mutants.args(["--shard", shard]);
    }
    // Mutants side by side need a folder each, or one would run what the other has built: the one in its own copy.
    match options.jobs {
        1 => mutants.env("CARGO_TARGET_DIR", folder.join("build")),
        _ => mutants.env_remove("CARGO_TARGET_DIR"),
    };
    mutants
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        .env("PROPTEST_CASES", PROPTEST_CASES);
    to_its_end(&mut mutants)?;
    let found = Found::read(&folder.join("mutants.out/outcomes.json"))?;
    println!("{found}");
    let is_whole = options.only.is_none() && options.shard.is_none();
    let is_looked_at = |key: &Key| is_whole && (options.long || !is_checker(key));
    let complaints = survivors::compare(&Listed::all()?, &found.outcomes, is_looked_at);
    if complaints.is_empty() {
        return Ok(());
    }
    Err(Error::Unproven {
        what: "mutants",
        complaints,
    })
}

/// The configuration with other files to look at. cargo-mutants adds files that are named on its command line to
/// those of its configuration, and its filters by name pass over fields of structs.
fn narrowed(config: &str, only: &str) -> String {
    const BEGINS: &str = "examine_globs = [";
    let (before, rest) = config.split_once(BEGINS).unwrap_or((config, "]"));
    let (_, after) = rest.split_once(']').unwrap_or_default();
    format!("{before}{BEGINS}{only:?}]{after}")
}

fn is_checker(key: &Key) -> bool {
    CHECKERS.iter().any(|module| key.starts_with(module))
}

/// Runs cargo-mutants: that some mutants were missed is no failure of its own.
fn to_its_end(mutants: &mut Command) -> Result<()> {
    let status = mutants.status().map_err(|cause| Error::Start {
        command: "cargo-mutants".into(),
        cause,
    })?;
    if status.code().is_some_and(|code| ENDED.contains(&code)) {
        return Ok(());
    }
    Err(Error::Failed {
        command: "cargo mutants".into(),
        status: status.to_string(),
        output: String::new(),
    })
}

/// How often a mutant of this name was caught, and how often it survived.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    caught: usize,
    survived: usize,
}

/// What became of the mutants.
#[derive(Debug, Default)]
struct Found {
    outcomes: BTreeMap<Key, Times>,
    unviable: usize,
    timeouts: usize,
}

impl Found {
    fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::file(path))?;
        let unclear = |what: &str| Error::Answer {
            command: "cargo mutants".into(),
            what: what.into(),
        };
        let json: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|cause| unclear(&cause.to_string()))?;
        let outcomes = json["outcomes"].as_array();
        let mut found = Self::default();
        for outcome in outcomes.ok_or_else(|| unclear("no outcomes"))? {
            // The run without any mutant is an outcome too, and has no name.
            let Some(name) = outcome["scenario"]["Mutant"]["name"].as_str() else {
                continue;
            };
            let summary = outcome["summary"].as_str().unwrap_or_default();
            found.count(name, summary).ok_or_else(|| unclear(summary))?;
        }
        Ok(found)
    }

    fn count(&mut self, name: &str, summary: &str) -> Option<()> {
        let times = self.outcomes.entry(survivors::key(name)).or_default();
        match summary {
            "CaughtMutant" => times.caught += 1,
            // A test that never ends is a test that does not pass.
            "Timeout" => {
                times.caught += 1;
                self.timeouts += 1;
            }
            "MissedMutant" => times.survived += 1,
            "Unviable" => self.unviable += 1,
            _ => return None,
        }
        Some(())
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sum = |of: fn(&Times) -> usize| self.outcomes.values().map(of).sum::<usize>();
        let (caught, survived) = (sum(|times| times.caught), sum(|times| times.survived));
        write!(
            f,
            "{} mutants: {caught} caught ({} by a time-out), {} unviable, {survived} survived",
            caught + survived + self.unviable,
            self.timeouts,
            self.unviable
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_by_name_without_line_and_column() {
        let mut found = Found::default();
        let name = |line| format!("manager/src/decide.rs:{line}:9: replace < with <= in quiet");
        found.count(&name(7), "CaughtMutant").unwrap();
        found.count(&name(8), "MissedMutant").unwrap();
        found.count(&name(9), "Timeout").unwrap();
        found.count("a.rs:1:1: delete !", "Unviable").unwrap();
        assert!(found.count(&name(9), "SomethingNew").is_none());
        let key = "manager/src/decide.rs: replace < with <= in quiet";
        let times = Times {
            caught: 2,
            survived: 1,
        };
        assert_eq!(found.outcomes[key], times);
        assert_eq!(
            found.to_string(),
            "4 mutants: 2 caught (1 by a time-out), 1 unviable, 1 survived"
        );
    }

    #[test]
    fn other_files_are_looked_at_by_the_same_rules() {
        let config = "a = 1\nexamine_globs = [\n    \"x\",\n    \"y\",\n]\nexclude_re = ['z']\n";
        let narrow = narrowed(config, "b/*.rs");
        let wanted = "a = 1\nexamine_globs = [\"b/*.rs\"]\nexclude_re = ['z']\n";
        assert_eq!(narrow, wanted);
    }

    #[test]
    fn the_list_of_survivors_can_be_read() {
        for listed in Listed::all().unwrap() {
            assert!(!listed.reason.is_empty(), "{} has no reason", listed.key);
        }
    }
}
