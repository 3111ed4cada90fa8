//! Real programs, from the friendly to the hostile, run by `execute`.
//!
//! `Spec::run` checks for each of them that no process survives and no byte is lost.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may panic, its helpers too"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;

use air_runner::execute::workdir::Workdir;

use support::{LONG, Spec, again};

mod support;

#[test]
#[ignore = "hidden: the other tests run it in a process of its own"]
fn one_program() {
    support::run_spec();
}

#[test]
fn a_program_gets_its_arguments_its_folder_no_input_and_its_environment_only() {
    let line = "pwd; cat; for a; do echo \"[$a]\"; done; exec env";
    let mut spec = Spec::new(["sh", "-c", line, "sh", "a b", "", "$x"]);
    spec.env.insert("X".into(), "with\nline".into());
    spec.cwd = "/usr/".into();
    let outcome = spec.run();
    assert_eq!(outcome.end, "Exited(0)");
    let text = outcome.text();
    let environment = text.strip_prefix("/usr\n[a b]\n[]\n[$x]\n").expect(&text);
    // The shell adds PWD and, by name, OLDPWD, SHLVL and _.
    let mut names: Vec<_> = environment
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    names.retain(|(name, _)| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name));
    names.sort_unstable();
    let names: Vec<_> = names.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["AIR_RUNNER", "PATH", "X"]);
}

#[test]
fn a_program_leads_a_process_group_of_its_own() {
    let text = Spec::shell("cut -d ' ' -f 1,5 /proc/$$/stat").run().text();
    let (pid, group) = text.trim().split_once(' ').unwrap();
    assert_eq!(pid, group);
}

#[test]
fn exit_codes_and_signals_are_told_apart() {
    for (line, end) in [
        ("exit 75", "Exited(75)"),
        ("exit 255", "Exited(255)"),
        ("kill -KILL $$", "Signalled(9)"),
        ("kill -SEGV $$", "Signalled(11)"),
        // A real-time signal, for which there is no name.
        ("kill -40 $$", "Signalled(40)"),
        (
            "(kill -40 $(exec sh -c 'echo $PPID') & wait); exit 3",
            "Exited(3)",
        ),
    ] {
        let outcome = Spec::shell(line).run();
        assert_eq!(outcome.end, end, "{line}");
        outcome.assert_prompt();
    }
}

#[test]
fn both_outputs_come_as_one_in_the_order_of_writing() {
    let line = "i=0; while [ $i -lt 300 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done";
    let expected: String = (0..300).map(|i| format!("o{i}\ne{i}\n")).collect();
    assert_eq!(Spec::shell(line).run().text(), expected);
}

#[test]
fn output_is_bytes() {
    let outcome = Spec::shell(r"printf '\377\000\n\376\200'").run();
    assert_eq!(outcome.output, [0xff, 0, b'\n', 0xfe, 0x80]);
    assert_eq!(outcome.tail, outcome.output);
}

#[test]
fn a_gigabyte_of_output_is_read_and_counted_but_kept_to_the_limit_only() {
    let mut spec = Spec::shell("head -c 1G /dev/zero; printf end");
    spec.output_bytes_max = 1_000_000;
    let outcome = spec.run();
    assert_eq!(outcome.end, "Exited(0)");
    assert_eq!(outcome.output_bytes, (1 << 30) + 3);
    assert_eq!(outcome.output, vec![0; 1_000_000]);
    assert_eq!(outcome.tail.len(), 4096);
    assert!(outcome.tail.ends_with(b"\0end"));
}

#[test]
fn a_program_goes_on_when_nobody_receives() {
    let mut spec = Spec::shell("head -c 10M /dev/zero");
    spec.output_bytes_max = u64::MAX;
    spec.deaf = true;
    let outcome = spec.run();
    assert_eq!(
        (outcome.end.as_str(), outcome.output_dropped),
        ("Exited(0)", 10 << 20)
    );
}

#[test]
fn time_and_memory_are_measured_over_the_whole_tree() {
    let burn = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
    let outcome = Spec::shell(&format!("sh -c '{burn}'")).run();
    assert!(outcome.cpu_ms >= 20, "{outcome:?}");
    assert!(
        outcome.cpu_ms <= 2 * outcome.elapsed_ms + 100,
        "{outcome:?}"
    );
    assert!(outcome.max_rss_kb >= 500, "{outcome:?}");
}

#[test]
fn what_cannot_be_started_says_what_where_and_how_to_mend_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, mode, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let plain = file("plain", 0o644, "#!/bin/sh\n");
    let carriage_return = file("carriage", 0o755, "#!/bin/sh\r\n");
    let no_line = file("no-line", 0o755, "echo hello\n");
    let long = "x".repeat(200_000);
    let mut elsewhere = Spec::new(["true"]);
    elsewhere.cwd = folder.path().join("missing");
    let mut in_a_file = Spec::new(["true"]);
    in_a_file.cwd = plain.clone().into();
    let mut bad_name = Spec::new(["true"]);
    bad_name.env.insert("A=B".into(), String::new());
    for (spec, texts) in [
        (
            Spec::new(["no-such-program"]),
            ["`no-such-program`", "on PATH `/usr/local/bin:"],
        ),
        (
            Spec::new(["/no/such"]),
            ["`/no/such` was not found", "install it"],
        ),
        (
            Spec::new(["./no-such"]),
            ["`./no-such` was not found", "in `/`"],
        ),
        (Spec::new([]), ["no program is named", "argv"]),
        (Spec::new([""]), ["no program is named", "argv"]),
        (Spec::new([&plain]), [&plain, "chmod +x"]),
        (Spec::new(["/usr"]), ["`/usr`", "is a folder"]),
        (
            Spec::new([&carriage_return]),
            [&carriage_return, "carriage return"],
        ),
        (Spec::new([&no_line]), [&no_line, "`#!`"]),
        (elsewhere, ["/missing", "does not exist; create it"]),
        (in_a_file, [&plain, "is not a folder"]),
        (
            Spec::new(["true", &long]),
            ["argument list too long", "the longest entry 200001"],
        ),
        (Spec::new(["true", "a", "b\0c"]), ["argument 2", "NUL byte"]),
        (bad_name, ["A=B", "has a name that"]),
    ] {
        let outcome = spec.clone().run();
        let expected = texts.iter().all(|text| outcome.end.contains(text));
        assert!(
            outcome.end.starts_with("not started: ") && expected,
            "{}",
            outcome.end
        );
    }
}

#[test]
fn a_program_is_found_relative_to_its_folder_and_on_its_own_path() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("hello");
    fs::write(&script, "#!/bin/sh\necho hello\n").unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let mut relative = Spec::new(["./hello"]);
    relative.cwd = folder.path().into();
    assert_eq!(relative.run().text(), "hello\n");
    let mut on_path = Spec::new(["hello"]);
    on_path
        .env
        .insert("PATH".into(), folder.path().to_str().unwrap().into());
    assert_eq!(on_path.run().text(), "hello\n");
}

#[test]
fn a_stop_asked_for_before_the_start_runs_nothing() {
    let mut spec = Spec::shell("echo ran");
    spec.cancel_at_once = true;
    let outcome = spec.run();
    assert_eq!(
        (outcome.end.as_str(), outcome.output_bytes),
        ("Stopped(Cancel)", 0)
    );
}

#[test]
fn a_program_that_heeds_sigterm_may_say_goodbye_and_costs_no_grace() {
    let mut spec =
        Spec::shell("trap 'echo bye; exit 0' TERM; printf ready; while :; do sleep 0.02; done");
    spec.lose_lease = true;
    let outcome = spec.run();
    assert_eq!(outcome.end, "Stopped(LeaseLost)");
    // A `sleep` that dies of the signal may make the shell say so.
    assert!(outcome.text().starts_with("ready") && outcome.text().contains("bye\n"));
    outcome.assert_prompt();
}

#[test]
fn a_program_that_ignores_sigterm_gets_it_once_and_dies_after_the_grace() {
    let mut spec = Spec::shell("trap 'echo term' TERM; echo ready; while :; do sleep 0.02; done");
    spec.cancel = true;
    spec.grace_ms = 300;
    let outcome = spec.run();
    assert_eq!(outcome.end, "Stopped(Cancel)");
    assert_eq!(
        outcome.text().matches("term\n").count(),
        1,
        "{}",
        outcome.text()
    );
    assert!(outcome.elapsed_ms >= 300, "{outcome:?}");

    let mut deaf = Spec::shell("trap '' TERM; echo ready; while :; do sleep 5; done");
    deaf.cancel = true;
    deaf.grace_ms = 100;
    assert_eq!(deaf.run().end, "Stopped(Cancel)");
}

#[test]
fn a_halted_program_still_hears_the_stop() {
    let mut spec = Spec::shell("echo ready; kill -STOP $$; sleep 1000");
    spec.cancel = true;
    let outcome = spec.run();
    assert_eq!(outcome.end, "Stopped(Cancel)");
    outcome.assert_prompt();
}

#[test]
fn the_time_limit_ends_the_tree() {
    let mut spec = Spec::shell("sleep 1000 & setsid sleep 1000 & wait");
    spec.timeout_ms = Some(100);
    let outcome = spec.run();
    assert_eq!(outcome.end, "TimedOut");
    assert!(outcome.elapsed_ms >= 100);
    outcome.assert_prompt();
}

#[test]
fn daemons_that_hold_the_pipe_do_not_outlive_the_program() {
    let outcome = Spec::shell("(setsid sh -c 'setsid sleep 1000 & sleep 1000' &); exit 7").run();
    assert_eq!(outcome.end, "Exited(7)");
    outcome.assert_prompt();

    let mut stubborn = Spec::shell("trap '' TERM; (setsid sleep 1000 &); exit 8");
    stubborn.grace_ms = 100;
    assert_eq!(stubborn.run().end, "Exited(8)");
}

#[test]
fn survivors_of_a_program_that_has_ended_get_a_second_not_the_whole_grace() {
    let outcome = Spec::shell("trap '' TERM; sleep 1000 & exit 0").run();
    assert_eq!(outcome.end, "Exited(0)");
    assert!(
        (1000..LONG / 2).contains(&outcome.elapsed_ms),
        "{outcome:?}"
    );
}

#[test]
fn two_hundred_children_that_ignore_sigterm_all_go() {
    let mut spec = Spec::shell(
        "trap '' TERM; i=0; while [ $i -lt 200 ]; do setsid sleep 1000 & i=$((i+1)); done; \
         echo ready; wait",
    );
    spec.cancel = true;
    spec.grace_ms = 50;
    assert_eq!(spec.run().end, "Stopped(Cancel)");
}

#[test]
fn a_program_that_closes_its_files_is_waited_for() {
    let outcome = Spec::shell("echo before; exec <&- >&- 2>&-; sleep 0.3; exit 4").run();
    assert_eq!(
        (outcome.end.as_str(), outcome.text().as_str()),
        ("Exited(4)", "before\n")
    );
    assert!(outcome.elapsed_ms >= 300);
    let mut for_ever = Spec::shell("exec <&- >&- 2>&-; sleep 1000");
    for_ever.timeout_ms = Some(100);
    assert_eq!(for_ever.run().end, "TimedOut");
}

#[test]
fn a_stranger_that_holds_the_pipe_holds_nobody_up() {
    let mut spec = Spec::shell("echo ready $$; exec sleep 1000");
    (spec.hold_pipe, spec.cancel) = (true, true);
    let outcome = spec.run();
    assert_eq!(outcome.end, "Stopped(Cancel)");
    outcome.assert_prompt();
}

/// Each process forks and ends, its child in a session of its own: what is seen has gone by
/// the time it is signalled.
#[test]
fn a_tree_that_forks_away_from_the_signals_loses_the_race() {
    // It gives up by itself, lest a failure of this test should harm the host.
    let chain = "use POSIX; $SIG{TERM} = 'IGNORE'; my $end = time + 20; fork; fork; \
                 while (time < $end) { exit 0 if fork; POSIX::setsid(); }";
    let mut spec = Spec::new(["perl", "-e", chain]);
    spec.grace_ms = 100;
    let outcome = spec.run();
    assert_eq!(outcome.end, "Exited(0)");
    assert!(outcome.elapsed_ms < 15_000, "{outcome:?}");
}

#[test]
#[ignore = "hidden: the next test runs it as a user without privileges"]
fn remove_read_only() {
    let workdir = Workdir::create("r", b"1", b"{}").unwrap();
    let inner = workdir.path().join("a/b");
    fs::create_dir_all(&inner).unwrap();
    fs::write(inner.join("file"), b"x").unwrap();
    fs::set_permissions(inner.join("file"), Permissions::from_mode(0o400)).unwrap();
    for folder in [
        &inner,
        &workdir.path().join("a"),
        &workdir.path().to_owned(),
    ] {
        fs::set_permissions(folder, Permissions::from_mode(0o500)).unwrap();
    }
    workdir.remove().unwrap();
}

#[test]
fn read_only_entries_do_not_keep_the_temporary_folder() {
    let parent = tempfile::tempdir().unwrap();
    fs::set_permissions(parent.path(), Permissions::from_mode(0o777)).unwrap();
    let mut helper = again("remove_read_only");
    helper.env("TMPDIR", parent.path());
    // Root may remove anything, which would show nothing.
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        helper.uid(65534).gid(65534);
    }
    let output = helper.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
}
