//! `air-audit`: an audit of a source tree, as tasks that queue tasks.
//!
//! One program, five kinds of task. It knows nothing of Air-Executor but the files and variables that a task is
//! given ([`contract`]), so it could be a script in any language:
//!
//! ```text
//! plan ─┬─▶ folder a ─┬─▶ folder a/b ─▶ …           each big folder queues its own tasks when its turn comes
//!       │             ├─▶ files … files …           small files are batched, so that the tasks stay some hundreds
//!       │             └─▶ merge a                   needs the files of a, and the merges of its folders
//!       ├─▶ files … files …
//!       └─▶ report                                  needs all of that, and is the last to run
//! ```
//!
//! Tasks run in the folder that is audited. Start reading in [`tasks`]; what a file is worth is in [`measure`].

mod contract;
mod measure;
mod names;
mod part;
mod report;
mod tasks;
mod tree;

use std::process::ExitCode;

const USAGE: &str =
    "Usage: air-audit plan|folder|files|merge|report, as a task of Air-Executor; see README.md";

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let (program, verb) = (arguments.next(), arguments.next());
    let done = match (program, verb.as_deref()) {
        (Some(program), Some("plan")) => tasks::plan(&program),
        (Some(program), Some("folder")) => tasks::folder(&program),
        (_, Some("files")) => tasks::files(),
        (_, Some("merge")) => tasks::merge(),
        (_, Some("report")) => tasks::report(),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("air-audit: {error}");
            ExitCode::FAILURE
        }
    }
}
