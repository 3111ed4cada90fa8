//! Calls, good and bad, and what stands in the file afterwards.

use std::ffi::OsString;

use serde_json::{Value, json};

use super::*;

fn add(path: &Path, words: &[&str]) -> Result<(), AddError> {
    let mut all = vec![OsString::from("add")];
    all.extend(words.iter().map(OsString::from));
    run(&all, Some(path.as_os_str())).map(drop)
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn every_option_has_its_field() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tasks");
    let input = folder.path().join("input");
    std::fs::write(&input, "[1]").unwrap();
    let from_file = format!("--input=@{}", input.display());
    let words = [
        "--id",
        "a",
        "--job=other",
        "--needs",
        "b,j/c",
        "--needs=d",
        "--timeout",
        "90",
        "--retries",
        "2",
        "--env",
        "A=b=c",
        "--env",
        "D=",
        &from_file,
        "--cwd",
        "/x",
        "--label",
        "k=v",
        "--not-before",
        "2026-01-31T08:00:00Z",
        "--",
        "echo",
        "--id",
        "-f",
    ];
    add(&path, &words).unwrap();
    add(&path, &["--run", "echo hi", "--timeout=1h30m"]).unwrap();
    let found = lines(&path);
    let first = json!({
        "v": 1, "id": "a", "exec": ["echo", "--id", "-f"], "needs": ["b", "j/c", "d"], "input": [1],
        "env": { "A": "b=c", "D": "" }, "cwd": "/x", "timeout": "1m30s", "retry": { "max": 2 },
        "not_before": "2026-01-31T08:00:00.000Z", "job": "other", "labels": { "k": "v" },
    });
    assert_eq!(found[0], first);
    assert_eq!(
        found[1],
        json!({ "v": 1, "run": "echo hi", "timeout": "1h30m" })
    );
}

#[test]
fn a_bad_call_says_what_to_do_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tasks");
    let listed = folder.path().join("list");
    std::fs::write(&listed, "{\"run\":\"a\"}\n\n{\"runn\":\"a\"}\n").unwrap();
    let listed = listed.to_str().unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&[], "nothing to do"),
        (&["--"], "behind `--`"),
        (&["echo"], "`echo` is no option"),
        (&["--timout", "3s", "--run", "x"], "`--timeout`"),
        (&["--id"], "wants a value"),
        (&["--run", "x", "--", "y"], "only one"),
        (&["--run", "x", "--env", "A"], "NAME=VALUE"),
        (&["--run", "x", "--env", "AIR_X=1"], "AIR_"),
        (&["--run", "x", "--retries", "many"], "`--retries many`"),
        (&["--run", "x", "--input", "text"], "@FILE"),
        (&["--run", "x", "--id", "_7"], "leading _"),
        (&["--run", "x", "--timeout", "soon"], "`soon`"),
        (&["-f", listed], "line 3"),
        (&["-f", listed, "--id", "a"], "whole tasks"),
    ];
    for (words, part) in cases {
        let error = add(&path, words).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{words:?}");
        assert!(error.to_string().contains(part), "{words:?}: {error}");
    }
    assert_eq!(
        add(&path, &["-f", "/none/there"]).unwrap_err().exit_code(),
        1
    );
    assert!(!path.exists());
    let error = run(&["add".into(), "--run".into(), "x".into()], None).unwrap_err();
    assert!(error.to_string().contains("AIR_TASKS is not set"));
    let error = run(&["remove".into()], Some(path.as_os_str())).unwrap_err();
    assert!(error.to_string().contains("`airx task add`"));
}

#[test]
fn lines_stay_whole_whoever_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tasks");
    std::fs::write(&path, "half").unwrap();
    let long = "x".repeat(100_000);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..10).for_each(|_| add(&path, &["--run", &long]).unwrap()));
        }
    });
    let text = std::fs::read_to_string(&path).unwrap();
    let (half, rest) = text.split_once('\n').unwrap();
    assert_eq!((half, rest.lines().count()), ("half", 40));
    assert!(
        rest.lines()
            .all(|line| serde_json::from_str::<Value>(line).is_ok())
    );
}
