//! `cargo xtask ci`: everything that a change must pass, in the order in which a failure is cheapest.
//!
//! What people type and what the build machine runs are this one list. It stops at the first failure. The tests come
//! last, so that their closing lines end the output.

use std::time::Instant;

use crate::docker::Docker;
use crate::error::Result;
use crate::{command, guards, test, tools, workspace};

/// Runs every step, says which one and how long each took.
pub(crate) fn run() -> Result<()> {
    step("format", || {
        command::run(&mut command::cargo("fmt --all --check"))
    })?;
    step("lints", || {
        let clippy = "clippy --workspace --all-targets -- -D warnings";
        command::run(&mut command::cargo(clippy))
    })?;
    step("docs", || {
        let mut doc = command::cargo("doc --workspace --no-deps --quiet");
        command::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    step("licences and sources", licences)?;
    step("guards", guards::all)?;
    println!("== tests");
    let docker = Docker::start();
    if let Err(error) = &docker {
        println!("== containers are left out, since Docker cannot be had here: {error}");
    }
    println!(
        "== pods, Airflow and Prefect are left out: `cargo xtask test --all` takes the minutes that they need"
    );
    let infrastructure = test::Infrastructure {
        docker: docker.ok(),
        others: false,
    };
    test::run(&infrastructure, &["--no-fail-fast".to_owned()])
}

/// Advisories are not part of it: they change without the code, and would fail a change that is not at fault.
fn licences() -> Result<()> {
    let mut deny = std::process::Command::new(tools::cargo_deny()?);
    let check = "--all-features check --hide-inclusion-graph bans licenses sources";
    deny.args(check.split(' ')).current_dir(workspace::root());
    command::run(&mut deny)
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("== {name}");
    let started = Instant::now();
    let done = work();
    let verdict = if done.is_ok() { "ok" } else { "FAILED" };
    println!(
        "== {name}: {verdict} after {:.1} s",
        started.elapsed().as_secs_f64()
    );
    done
}
