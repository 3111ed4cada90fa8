//! What needs no server: usage, sub-tasks, completions, manual pages, and a server that is not there.

use crate::world::{airx, run};

#[test]
fn a_wrong_command_line_is_code_2() {
    assert!(run(&mut airx(&["statsu"])).bad(2).contains("status"));
    assert!(run(&mut airx(&["submit", "j"])).bad(2).contains("--file"));
    assert!(
        run(&mut airx(&["submit", "a b", "--", "true"]))
            .bad(2)
            .contains("no job name")
    );
    assert!(
        run(&mut airx(&[
            "submit",
            "j",
            "--timeout",
            "soon",
            "--",
            "true"
        ]))
        .bad(2)
        .contains("30m")
    );
    assert!(
        run(&mut airx(&["submit", "j", "--run", "x", "--", "true"]))
            .bad(2)
            .contains("cannot be used with")
    );
    assert!(
        run(&mut airx(&["export", "j", "-o", "yaml"]))
            .bad(2)
            .contains("csv")
    );
    assert!(
        run(&mut airx(&["manager", "--poll", "1h"]))
            .bad(2)
            .contains("1m")
    );
    assert!(
        run(&mut airx(&["init", "--replicas", "6"]))
            .bad(2)
            .contains("1..=5")
    );
    assert!(run(&mut airx(&["--version"])).good().starts_with("airx "));
}

#[test]
fn a_server_that_is_not_there_is_code_4() {
    let nowhere = ["--server", "nats://127.0.0.1:1", "status"];
    let err = run(&mut airx(&nowhere)).bad(4);
    assert_eq!(err.lines().count(), 1, "{err}");
    assert!(
        err.contains("airx dev") && err.contains("--server"),
        "{err}"
    );
    assert!(
        run(&mut airx(&["--context", "none", "status"]))
            .bad(3)
            .contains("nats context ls")
    );
    let doctor = run(&mut airx(&["--server", "nats://127.0.0.1:1", "doctor"]));
    assert_eq!((doctor.code, doctor.err.as_str()), (1, ""));
    assert!(doctor.out.contains("wrong  server"), "{}", doctor.out);
}

#[test]
fn task_add_appends_lines_inside_a_task_only() {
    let outside = run(&mut airx(&["task", "add", "--", "true"])).bad(2);
    assert!(outside.contains("airx submit"), "{outside}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tasks");
    let add = |args: &[&str]| {
        let mut command = airx(&["task", "add"]);
        run(command.args(args).env("AIR_TASKS", &file))
    };
    add(&["--id", "a", "--needs", "b,k/c", "--", "echo", "hi"]).good();
    add(&["--job", "k", "--run", "x"]).good();
    assert!(
        add(&["--id", "a b", "--run", "x"])
            .bad(2)
            .contains("no task id")
    );
    let text = std::fs::read_to_string(&file).unwrap();
    let wanted = concat!(
        r#"{"v":1,"id":"a","exec":["echo","hi"],"needs":["b","k/c"]}"#,
        "\n",
        r#"{"v":1,"run":"x","job":"k"}"#,
        "\n"
    );
    assert_eq!(text, wanted);
}

#[test]
fn completions_and_manual_pages_are_written() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            run(&mut airx(&["completions", shell]))
                .good()
                .contains("submit"),
            "{shell}"
        );
    }
    assert!(run(&mut airx(&["man"])).good().contains(".TH airx 1"));
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("man1");
    run(airx(&["man"]).arg(&dir)).good();
    for page in [
        "airx.1",
        "airx-submit.1",
        "airx-task-add.1",
        "airx-spec-edit.1",
    ] {
        assert!(dir.join(page).exists(), "{page}");
    }
}
