//! What becomes of a task's work.

use serde_json::json;

use super::*;

#[tokio::test]
async fn commits_and_what_is_uncommitted_end_up_on_the_branch() {
    let stage = Stage::new();
    let space = stage.fresh().await;
    let tree = space.path().to_owned();
    write(&tree, "greeting", "hi\n");
    git(&tree, &["commit", "-q", "-a", "-m", "by the agent"]);
    write(&tree, "new", "one\ntwo\n");
    write(&tree, "built", "ignored\n");
    let summary = space.finish("what was left").await.unwrap();
    let repo = stage.repo();
    assert_eq!(summary.branch, "air/job/task");
    assert_eq!(git(&repo, &["rev-parse", "air/job/task"]), summary.commit);
    assert_eq!(git(&repo, &["rev-parse", "main"]), summary.base);
    let log = git(&repo, &["log", "--format=%s", "main..air/job/task"]);
    assert_eq!(log, "what was left\nby the agent");
    assert_eq!(
        git(&repo, &["status", "--porcelain"]),
        "",
        "its own tree is as it was"
    );
    let changes = (summary.files_changed, summary.insertions, summary.deletions);
    assert_eq!(changes, (2, 3, 1));
    let output = summary.with_result(json!("done"));
    assert_eq!(output["result"], "done");
    assert_eq!(
        output["files"][1],
        json!({ "path": "new", "insertions": 2, "deletions": 0 })
    );
    assert_eq!(output["patch_omitted_bytes"], 0);
    // The patch is one: it makes the same tree of the start.
    fs::write(stage.folder.path().join("patch"), summary.patch).unwrap();
    git(&repo, &["apply", "--index", "../patch"]);
    let applied = git(&repo, &["write-tree"]);
    assert_eq!(applied, git(&repo, &["rev-parse", "air/job/task^{tree}"]));
    space.remove().unwrap();
    assert!(stage.is_clean());
}

#[tokio::test]
async fn a_task_that_changes_nothing_has_a_branch_too() {
    let stage = Stage::new();
    let summary = stage.fresh().await.finish("nothing").await.unwrap();
    assert_eq!((summary.commit, summary.patch.as_str()), (summary.base, ""));
    git(&stage.repo(), &["rev-parse", "--verify", "air/job/task"]);
}

#[tokio::test]
async fn work_that_the_agent_put_elsewhere_is_found() {
    let stage = Stage::new();
    for (task, wander) in [
        ("own", vec!["switch", "-q", "-c", "mine"]),
        ("off", vec!["checkout", "-q", "--detach"]),
    ] {
        let order = Order {
            task,
            ..stage.order()
        };
        let space = prepare(&order, Start::Fresh).await.unwrap();
        git(space.path(), &wander);
        write(space.path(), "new", "work\n");
        git(space.path(), &["add", "."]);
        git(space.path(), &["commit", "-q", "-m", "elsewhere"]);
        let summary = space.finish("rest").await.unwrap();
        let subject = git(
            &stage.repo(),
            &["log", "-1", "--format=%s", &summary.branch],
        );
        assert_eq!(subject, "elsewhere");
    }
}

#[tokio::test]
async fn a_merge_is_committed_as_one_and_never_with_its_conflicts() {
    let stage = Stage::new();
    let repo = stage.repo();
    git(&repo, &["switch", "-q", "-c", "other"]);
    write(&repo, "greeting", "theirs\n");
    git(&repo, &["commit", "-q", "-a", "-m", "theirs"]);
    git(&repo, &["switch", "-q", "main"]);
    let space = stage.fresh().await;
    let tree = space.path();
    write(tree, "greeting", "ours\n");
    git(tree, &["commit", "-q", "-a", "-m", "ours"]);
    let merge = Command::new("git")
        .args(["merge", "-q", "origin/other"])
        .current_dir(tree)
        .output();
    assert!(!merge.unwrap().status.success(), "there is a conflict");
    let error = space.finish("rest").await.unwrap_err();
    assert!(
        error.is_for_good() && error.to_string().contains("greeting"),
        "{error}"
    );
    write(tree, "greeting", "both\n");
    let summary = space.finish("merged").await.unwrap();
    let parents = git(&repo, &["log", "-1", "--format=%p", &summary.commit]);
    assert_eq!(parents.split(' ').count(), 2, "{parents}");
    assert_eq!(git(&repo, &["show", "air/job/task:greeting"]), "both");
}

#[tokio::test]
async fn what_failed_is_there_to_be_looked_at_and_the_tree_stays_as_it_was() {
    let stage = Stage::new();
    let space = stage.fresh().await;
    assert_eq!(space.publish_unfinished("no").await.unwrap(), None);
    write(space.path(), "new", "half\n");
    let before = git(space.path(), &["status", "--porcelain"]);
    let commit = space
        .publish_unfinished("unfinished")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(git(&stage.repo(), &["rev-parse", "air/job/task"]), commit);
    assert_eq!(git(space.path(), &["status", "--porcelain"]), before);
    assert_eq!(git(space.path(), &["rev-parse", "HEAD"]), space.base());
}

#[tokio::test]
async fn a_long_difference_is_cut_at_a_line_and_the_rest_is_said() {
    let stage = Stage::new();
    let space = stage.fresh().await;
    write(
        space.path(),
        "long",
        &"a line of some length\n".repeat(50_000),
    );
    for number in 0..1100 {
        write(space.path(), &format!("f{number}"), "x\n");
    }
    let summary = space.finish("much").await.unwrap();
    assert!(summary.patch.len() <= 256 * 1024 && summary.patch.ends_with('\n'));
    assert!(summary.patch_omitted_bytes > 50_000 * 22 - 256 * 1024);
    assert_eq!((summary.files_changed, summary.files.len()), (1101, 1000));
    assert_eq!(summary.insertions, 51_100);
}

#[tokio::test]
async fn nothing_that_the_agent_or_the_repository_sets_up_runs() {
    use std::os::unix::fs::PermissionsExt;
    let stage = Stage::new();
    let trap = stage.folder.path().join("trapped");
    let script = format!("#!/bin/sh\necho \"$0\" >>{}\n", trap.display());
    let arm = |hooks: &Path| {
        fs::create_dir_all(hooks).unwrap();
        for name in [
            "pre-receive",
            "update",
            "post-receive",
            "post-update",
            "pre-push",
            "post-checkout",
            "pre-commit",
            "reference-transaction",
        ] {
            write(hooks, name, &script);
            fs::set_permissions(hooks.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
    };
    arm(&stage.repo().join(".git/hooks"));
    let space = stage.fresh().await;
    let run = stage.repo().join(".git/hooks/update");
    let run = run.to_str().unwrap();
    arm(&space.git.dir().join("hooks"));
    for (name, value) in [
        (
            "core.hooksPath",
            space.git.dir().join("hooks").to_str().unwrap(),
        ),
        ("core.fsmonitor", run),
        ("filter.x.clean", run),
        ("diff.external", run),
        ("core.alternateRefsCommand", run),
    ] {
        git(space.path(), &["config", name, value]);
    }
    write(space.path(), ".gitattributes", "* filter=x diff=x\n");
    write(space.path(), "new", "work\n");
    // Nor is it led elsewhere.
    write(space.path(), ".git", "gitdir: /nowhere\n");
    let summary = space.finish("rest").await.unwrap();
    assert_eq!(summary.files_changed, 2);
    assert!(
        !trap.exists(),
        "ran: {}",
        fs::read_to_string(&trap).unwrap()
    );
}

#[tokio::test]
async fn a_branch_that_people_have_checked_out_is_not_pulled_from_under_them() {
    let stage = Stage::new();
    let space = stage.fresh().await;
    git(&stage.repo(), &["switch", "-q", "-c", "air/job/task"]);
    write(space.path(), "new", "work\n");
    let error = space.finish("rest").await.unwrap_err();
    assert!(
        !error.is_for_good() && error.to_string().contains("refusing"),
        "{error}"
    );
    git(&stage.repo(), &["switch", "-q", "main"]);
    space.finish("rest").await.unwrap();
}

#[tokio::test]
async fn a_bare_repository_by_its_address_serves_as_well() {
    let mut stage = Stage::new();
    let bare = stage.folder.path().join("bare.git");
    git(
        stage.folder.path(),
        &["clone", "-q", "--bare", "repo", "bare.git"],
    );
    stage.workspace.repo = format!("file://{}", bare.display());
    let space = stage.fresh().await;
    write(space.path(), "new", "work\n");
    let summary = space.finish("rest").await.unwrap();
    assert_eq!(git(&bare, &["rev-parse", "air/job/task"]), summary.commit);
}
