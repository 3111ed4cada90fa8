//! `cargo xtask guards`: leaves out one guard of the code after the other, and sees that the test named for it fails.
//!
//! [`table`] is the list. The sources are copied below the target folder, one of them is changed, the test is run, and
//! the file is put back. The tree itself is never touched. Start at [`run`].

mod copy;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use clap::Args;

use crate::error::{Error, Result};
use crate::{command, workspace};
use table::{Caught, GUARDS, Guard};

/// Which guards are left out.
#[derive(Args)]
pub(crate) struct Options {
    /// Only guards whose name contains this
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// All of them.
pub(crate) fn all() -> Result<()> {
    run(&Options { name: None })
}

/// Leaves them out one by one; fails if one is missed, if a test fails without any change, or if the list is stale.
pub(crate) fn run(options: &Options) -> Result<()> {
    let chosen: Vec<_> = GUARDS
        .iter()
        .filter(|guard| {
            let name = options.name.as_deref();
            name.is_none_or(|name| guard.name.contains(name))
        })
        .collect();
    let mut complaints: Vec<_> = stale(&workspace::root(), &chosen);
    if complaints.is_empty() {
        let copy = Copy::new()?;
        copy.all_pass(&chosen)?;
        for guard in &chosen {
            complaints.extend(copy.leave_out(guard)?);
        }
    }
    if complaints.is_empty() {
        println!(
            "{} guards: each is noticed when it is left out",
            chosen.len()
        );
        return Ok(());
    }
    Err(Error::Unproven {
        what: "guards",
        complaints,
    })
}

/// Guards whose text is not in its file exactly once.
fn stale(root: &Path, guards: &[&Guard]) -> Vec<String> {
    let found = |guard: &Guard| {
        let text = std::fs::read_to_string(root.join(guard.file)).unwrap_or_default();
        text.matches(guard.source).count()
    };
    let complaint = |guard: &&Guard| match found(guard) {
        1 => None,
        times => Some(format!(
            "{}: its text stands {times} times in {}, not once; see xtask/src/guards/table.rs",
            guard.name, guard.file
        )),
    };
    guards.iter().filter_map(complaint).collect()
}

/// A copy of the sources in which guards are left out.
struct Copy {
    source: PathBuf,
    build: PathBuf,
}

/// What a run of tests came to.
enum Ran {
    Passed(String),
    Failed,
    NotBuilt(String),
}

impl Copy {
    fn new() -> Result<Self> {
        let folder = workspace::target()?.join("guards");
        let (source, build) = (folder.join("source"), folder.join("build"));
        copy::mirror(&workspace::root(), &source)?;
        Ok(Self { source, build })
    }

    /// Every test of the list passes as long as nothing is left out.
    fn all_pass(&self, guards: &[&Guard]) -> Result<()> {
        let mut by_package: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for guard in guards {
            if let Caught::By { package, test } = guard.caught {
                let tests = by_package.entry(package).or_default();
                if !tests.contains(&test) {
                    tests.push(test);
                }
            }
        }
        for (package, tests) in by_package {
            let started = Instant::now();
            let passed = format!("ok. {} passed", tests.len());
            match self.test(package, &tests)? {
                Ran::Passed(output) if output.contains(&passed) => println!(
                    "{package}: {} tests pass with all guards, after {:.1} s",
                    tests.len(),
                    started.elapsed().as_secs_f64()
                ),
                Ran::Passed(output) | Ran::NotBuilt(output) => {
                    return Err(unexpected(package, &output));
                }
                Ran::Failed => return Err(unexpected(package, "a test of the list fails")),
            }
        }
        Ok(())
    }

    /// Leaves one out; gives what is wrong with its test.
    fn leave_out(&self, guard: &Guard) -> Result<Option<String>> {
        let started = Instant::now();
        let path = self.source.join(guard.file);
        let text = std::fs::read_to_string(&path).map_err(Error::file(&path))?;
        let without = text.replacen(guard.source, guard.instead, 1);
        std::fs::write(&path, without).map_err(Error::file(&path))?;
        let ran = match guard.caught {
            Caught::By { package, test } => self.test(package, &[test]),
            Caught::NotBuilt { package, .. } => {
                ran(&mut self.cargo(&format!("test -p {package} --lib --no-run")))
            }
        };
        std::fs::write(&path, text).map_err(Error::file(&path))?;
        let complaint = match (ran?, guard.caught) {
            (Ran::Failed, Caught::By { test, .. }) => {
                let seconds = started.elapsed().as_secs_f64();
                println!("{}: noticed by {test} after {seconds:.1} s", guard.name);
                None
            }
            (Ran::NotBuilt(output), Caught::NotBuilt { says, .. }) if output.contains(says) => {
                println!("{}: noticed by the compiler", guard.name);
                None
            }
            (Ran::NotBuilt(output), _) => Some(format!("it does not compile: {output}")),
            (Ran::Passed(_) | Ran::Failed, _) => Some("nothing notices that it is gone".into()),
        };
        Ok(complaint.map(|what| format!("{}: {what}", guard.name)))
    }

    fn test(&self, package: &str, tests: &[&str]) -> Result<Ran> {
        let mut test = self.cargo(&format!("test -p {package} --lib -- --exact"));
        ran(test.args(tests))
    }

    fn cargo(&self, line: &str) -> Command {
        let mut cargo = command::cargo(line);
        cargo
            .current_dir(&self.source)
            .env("CARGO_TARGET_DIR", &self.build)
            .env("CARGO_PROFILE_DEV_DEBUG", "false");
        cargo
    }
}

fn unexpected(package: &str, output: &str) -> Error {
    Error::Answer {
        command: format!("cargo test -p {package}, with all guards"),
        what: output.to_owned(),
    }
}

/// Runs cargo; tells a test that failed from a program that does not compile.
fn ran(cargo: &mut Command) -> Result<Ran> {
    let output = cargo.output().map_err(|cause| Error::Start {
        command: "cargo".into(),
        cause,
    })?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(match output.status.success() {
        true => Ran::Passed(stdout),
        false if stdout.contains("test result: FAILED") => Ran::Failed,
        false => Ran::NotBuilt(String::from_utf8_lossy(&output.stderr).into_owned()),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_guard_stands_once_in_its_file() {
        let all: Vec<_> = GUARDS.iter().collect();
        assert_eq!(stale(&workspace::root(), &all), [""; 0]);
        assert!(all.iter().all(|guard| guard.source != guard.instead));
    }

    #[test]
    fn every_guard_has_a_name_of_its_own() {
        let names: BTreeSet<_> = GUARDS.iter().map(|guard| guard.name).collect();
        assert_eq!(names.len(), GUARDS.len());
    }

    #[test]
    fn a_text_that_is_gone_or_stands_twice_is_told() {
        let guard = |source| Guard {
            name: "g",
            file: "Cargo.toml",
            source,
            instead: "",
            caught: Caught::NotBuilt {
                package: "p",
                says: "",
            },
        };
        let (gone, twice) = (guard("no such text"), guard("publish"));
        let told = stale(&workspace::root(), &[&gone]);
        assert!(told[0].contains("stands 0 times"), "{told:?}");
        assert!(stale(&workspace::root(), &[&twice]).is_empty());
        let told = stale(&workspace::root(), &[&guard("version = ")]);
        assert!(told[0].contains("not once"), "{told:?}");
    }
}
