//! The five kinds of task: what each reads, queues and leaves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::contract::{self, Task};
use crate::measure::measure;
use crate::part::{Part, Unread};
use crate::tree::{self, Listing};
use crate::{names, report};

/// Batches of files for which a tree is divided. A folder queues at most twice as many tasks, so that the task which
/// merges them stays within the 1,000 needs that a task may have.
const BATCHES: u64 = 400;
/// One batch in so many fails on its first attempt, on purpose: retries belong to every real workload.
const FLAKY_EVERY: u64 = 10;

/// Input of the first task.
#[derive(Debug, Deserialize)]
struct Wish {
    /// Jobs over which folders and files are spread.
    jobs: u64,
}

/// What all tasks of one audit have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Plan {
    /// The job of the first and the last task; the others are `<home>-1`, `<home>-2`, and so on.
    home: String,
    jobs: u64,
    /// The weight of a batch of files.
    unit: u64,
}

/// Input of a folder's task.
#[derive(Debug, Serialize, Deserialize)]
struct FolderInput {
    plan: Plan,
    folder: String,
}

/// Input of a batch of files.
#[derive(Debug, Serialize, Deserialize)]
struct FilesInput {
    files: Vec<String>,
}

/// Input of the last task.
#[derive(Debug, Serialize, Deserialize)]
struct ReportInput {
    /// Files that the first task has seen.
    listed: u64,
}

/// The first task: counts the tree, decides how finely to divide it, and queues the root's tasks and the report.
pub(crate) fn plan(program: &str) -> Result<(), String> {
    let wish: Wish = contract::input()?;
    let tree = tree::weigh(Path::new(""), u64::MAX);
    let plan = Plan {
        home: contract::variable("AIR_JOB")?,
        jobs: wish.jobs.max(1),
        unit: tree.weight.div_ceil(BATCHES).max(1),
    };
    let family = family(program, &plan, Path::new(""))?;
    println!(
        "{} files in tasks of weight {}; the root has {} tasks",
        tree.files,
        plan.unit,
        family.tasks.len()
    );
    let report = Task {
        id: "report".to_owned(),
        job: plan.home.clone(),
        needs: family.needs,
        ..task(
            program,
            "report",
            &json!(ReportInput { listed: tree.files }),
        )?
    };
    // The report needs this task's output too: what of the root could not be read.
    let own = format!("{}/{}", plan.home, contract::variable("AIR_TASK")?);
    let report = Task {
        needs: [report.needs, vec![own]].concat(),
        ..report
    };
    contract::queue(&[family.tasks, vec![report]].concat())?;
    contract::output(&Part::of_unread_folders(family.unread))
}

/// A big folder: queues its batches of files, its big folders, and the merge of them all.
pub(crate) fn folder(program: &str) -> Result<(), String> {
    let input: FolderInput = contract::input()?;
    let folder = path(&input.folder)?;
    let family = family(program, &input.plan, &folder)?;
    println!("{}: {} tasks", input.folder, family.tasks.len());
    let (job, id) = merge_of(&input.plan, &folder);
    let merge = Task {
        id,
        job,
        needs: family.needs,
        ..task(program, "merge", &Value::Null)?
    };
    contract::queue(&[family.tasks, vec![merge]].concat())?;
    contract::output(&Part::of_unread_folders(family.unread))
}

/// A batch of files: reads them.
pub(crate) fn files() -> Result<(), String> {
    if std::env::var_os("AUDIT_FLAKY").is_some() && contract::variable("AIR_ATTEMPT")? == "1" {
        return Err(
            "this task fails on its first attempt on purpose (label flaky=on-purpose)".to_owned(),
        );
    }
    let input: FilesInput = contract::input()?;
    let mut sum = Part::default();
    for file in &input.files {
        sum.add(measure(&path(file)?));
        println!("{file}");
    }
    contract::output(&sum)
}

/// The merge of a folder: adds up what its tasks have found.
pub(crate) fn merge() -> Result<(), String> {
    contract::output(&Part::sum(contract::needs::<Part>()?))
}

/// The last task: adds up the whole tree and writes the report.
pub(crate) fn report() -> Result<(), String> {
    let input: ReportInput = contract::input()?;
    let sum = Part::sum(contract::needs::<Part>()?);
    let root = std::env::current_dir().map_err(|error| error.to_string())?;
    let report = report::write(&names::to_text(&root), &sum, input.listed);
    print!("{}", report.text);
    contract::output(&report)
}

/// What a folder queues, and what its merge needs.
#[derive(Debug, Default)]
struct Family {
    tasks: Vec<Task>,
    needs: Vec<String>,
    unread: Vec<Unread>,
}

fn family(program: &str, plan: &Plan, folder: &Path) -> Result<Family, String> {
    let mut family = Family::default();
    let listing = tree::list(folder).unwrap_or_else(|error| {
        family.unread.push(Unread::new(folder, &error));
        Listing::default()
    });
    let mut files = listing.files;
    for below in listing.folders {
        if tree::weigh(&below, plan.unit).weight > plan.unit {
            let text = names::to_text(&below);
            let input = FolderInput {
                plan: plan.clone(),
                folder: text,
            };
            let job = job(plan, names::number(&below));
            let id = format!("folder-{}", names::tag(&below));
            // Its merge is queued by that task. Needing both, the merge here is skipped should the folder fail.
            let (merge_job, merge_id) = merge_of(plan, &below);
            family.needs.push(format!("{job}/{id}"));
            family.needs.push(format!("{merge_job}/{merge_id}"));
            family.tasks.push(Task {
                id,
                job,
                ..task(program, "folder", &json!(input))?
            });
        } else {
            tree::gather(&below, &mut files, &mut family.unread);
        }
    }
    for (batch, index) in tree::batches(files, plan.unit).into_iter().zip(0..) {
        let files: Vec<_> = batch.iter().map(|file| names::to_text(file)).collect();
        let id = format!("files-{}-{index}", names::tag(folder));
        let job = job(plan, names::number(folder).wrapping_add(index));
        family.needs.push(format!("{job}/{id}"));
        let mut task = Task {
            id,
            job,
            ..task(program, "files", &json!(FilesInput { files }))?
        };
        if is_flaky(&batch) {
            task.env.insert("AUDIT_FLAKY".to_owned(), "1".to_owned());
            task.labels
                .insert("flaky".to_owned(), "on-purpose".to_owned());
        }
        family.tasks.push(task);
    }
    Ok(family)
}

fn is_flaky(batch: &[PathBuf]) -> bool {
    batch
        .first()
        .is_some_and(|file| names::number(file).is_multiple_of(FLAKY_EVERY))
}

fn job(plan: &Plan, number: u64) -> String {
    format!("{}-{}", plan.home, number % plan.jobs + 1)
}

fn merge_of(plan: &Plan, folder: &Path) -> (String, String) {
    let id = format!("merge-{}", names::tag(folder));
    (job(plan, names::number(folder)), id)
}

/// A task without its names.
fn task(program: &str, kind: &str, input: &Value) -> Result<Task, String> {
    let here = std::env::current_dir().map_err(|error| error.to_string())?;
    let here = here
        .to_str()
        .ok_or("the path of the tree is no UTF-8, which JSON cannot hold")?;
    Ok(Task {
        id: String::new(),
        job: String::new(),
        exec: vec![program.to_owned(), kind.to_owned()],
        cwd: here.to_owned(),
        input: input.clone(),
        needs: Vec::new(),
        labels: [("kind".to_owned(), kind.to_owned())].into(),
        env: BTreeMap::new(),
    })
}

fn path(text: &str) -> Result<PathBuf, String> {
    names::of_text(text).ok_or_else(|| format!("`{text}` is no path"))
}
