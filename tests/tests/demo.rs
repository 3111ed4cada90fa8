//! The audit of `cargo xtask demo` on a small tree of odd files: all of it is read, and each task is committed once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use air_protocol::job::{JobState, JobStatus};
use air_protocol::record::{Record, Status};
use air_tests::{Installation, binary};
use serde_json::json;

/// Files of the tree that are no duplicates and have nothing odd.
const PLAIN: usize = 40;

fn write(tree: &Path, name: &[u8], content: &[u8]) {
    let path = tree.join(OsStr::from_bytes(name));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// Makes the tree, and gives the number of files that an audit reads.
fn make(tree: &Path) -> usize {
    let mark = concat!("FIX", "ME");
    let marked = format!("// {mark}: it is late\n{mark}S\n");
    let files: [(&[u8], &[u8]); 11] = [
        (b"src/main.rs", b"fn main() {}\n// no end of line"),
        (b"src/left.rs", marked.as_bytes()),
        (b"odd names/with space.py", b"print()\n"),
        (b"odd names/new\nline.py", b"print(1)\n\n"),
        (b"odd names/back\\slash`|.md", b"# longer than many\n"),
        (b"odd names/caf\xe9.txt", b"no UTF-8: \xe9\n"),
        (b"binary.dat", b"\0\n\0\n"),
        (b"nothing.txt", b""),
        (b"a/copy.txt", b"the same\n"),
        (b"b/c/d/copy.txt", b"the same\n"),
        (b"odd names/a copy.txt", b"the same\n"),
    ];
    for (name, content) in files {
        write(tree, name, content);
    }
    for n in 0..PLAIN {
        let name = format!("many/folder {}/file-{n}.toml", n % 5);
        write(tree, name.as_bytes(), format!("n = {n}\n").as_bytes());
    }
    std::fs::create_dir_all(tree.join("empty/emptier")).unwrap();
    std::os::unix::fs::symlink("..", tree.join("src/loop")).unwrap();
    write(tree, b".git/config", b"left out");
    write(
        tree,
        b"made/CACHEDIR.TAG",
        b"Signature: 8a477f597d28d172789f06886806bc55\n",
    );
    write(tree, b"made/output.rs", b"left out");
    files.len() + PLAIN
}

fn plan(tree: &Path) -> String {
    json!({
        "id": "plan",
        "exec": [binary("air-audit"), "plan"],
        "cwd": tree,
        "input": { "jobs": 3 },
    })
    .to_string()
}

/// All records by job and task, once every job is completed.
async fn records(air: &Installation, jobs: u32) -> BTreeMap<String, Vec<Record>> {
    let mut all: BTreeMap<String, Vec<Record>> = BTreeMap::new();
    let others = (1..=jobs).map(|n| format!("audit-{n}"));
    for job in others.chain(["audit".to_owned()]) {
        let over = |state: &JobState| matches!(state.status, JobStatus::Completed { .. });
        air.wait_state(&job, over).await;
        for (_, record) in air.records(&job).await {
            let task = format!("{job}/{}", record.task);
            all.entry(task).or_default().push(record);
        }
    }
    all
}

fn is_flaky(records: &[Record]) -> bool {
    let spec = records[0].spec.as_ref();
    spec.is_some_and(|spec| spec.labels.contains_key("flaky"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_reads_every_file_and_commits_each_task_once() {
    let air = Installation::start(1).await;
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("a tree");
    std::fs::create_dir(&tree).unwrap();
    let files = make(&tree);
    air.publish("audit", &plan(&tree)).await;
    let last = air.wait_record("audit", "report", Status::Succeeded).await;

    let report = last.output.unwrap();
    let text = report["text"].as_str().unwrap();
    assert_eq!(report["complete"], true, "{text}");
    assert_eq!(report["files"], files, "{text}");
    assert_eq!(report["unread"], 0, "{text}");
    assert_eq!(report["duplicates"], 2, "{text}");
    assert_eq!(report["marks"], 1, "{text}");
    // 2 + 2 in Rust, 1 + 2 in Python, 1 in Markdown, 1 + 3 in text, one in each of the many.
    assert_eq!(report["lines"], 12 + PLAIN, "{text}");
    for part in [
        "| TOML     ",
        "| Python   ",
        "| (binary) ",
        r"`odd names/new\nline.py`",
        r"`odd names/caf\xe9.txt`",
        r"`` odd names/back\\slash`|.md ``",
        "- 3 x 9 B: `a/copy.txt`, `b/c/d/copy.txt`, `odd names/a copy.txt`",
        "`src/left.rs`:1  `// ",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    assert!(
        !text.contains("output.rs") && !text.contains("config"),
        "{text}"
    );

    let tasks = records(&air, 3).await;
    let queued: u64 = tasks.values().flatten().map(|record| record.subtasks).sum();
    assert_eq!(
        queued + 1,
        tasks.len() as u64,
        "every task that was queued has run"
    );
    let mut runners = BTreeSet::new();
    for (task, records) in &tasks {
        let ends: Vec<_> = records
            .iter()
            .map(|record| (record.attempt, record.status))
            .collect();
        let expected = if is_flaky(records) {
            vec![(1, Status::Retrying), (2, Status::Succeeded)]
        } else {
            vec![(1, Status::Succeeded)]
        };
        let errors: Vec<_> = records.iter().map(|record| &record.error).collect();
        assert_eq!(ends, expected, "{task}: {errors:?}");
        runners.extend(records.iter().map(|record| record.run.unwrap()));
    }
    let attempts: usize = tasks.values().map(Vec::len).sum();
    assert_eq!(
        runners.len(),
        attempts,
        "each attempt has a runner of its own"
    );
    let flaky = tasks.values().filter(|records| is_flaky(records)).count();
    assert!(
        flaky > 0 && attempts == tasks.len() + flaky,
        "{flaky} tasks are flaky"
    );
}
