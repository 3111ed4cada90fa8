//! Where a task starts, and what is refused.

use super::*;

#[tokio::test]
async fn a_task_starts_on_a_branch_of_its_own_with_nothing_to_commit() {
    let stage = Stage::new();
    let space = stage.fresh().await;
    let tree = space.path().to_owned();
    assert_eq!(space.origin(), Origin::Fresh);
    assert!(tree.ends_with("job/task"), "{}", tree.display());
    assert_eq!(read(&tree, "greeting"), "hello\n");
    assert_eq!(git(&tree, &["branch", "--show-current"]), "air/job/task");
    assert_eq!(git(&tree, &["status", "--porcelain"]), "");
    assert_eq!(git(&tree, &["rev-parse", "HEAD"]), space.base());
    assert_eq!(git(&stage.repo(), &["rev-parse", "main"]), space.base());
    assert_eq!(git(&tree, &["remote"]), "", "there is nowhere to push to");
    // The agent commits without having to say who it is.
    write(&tree, "greeting", "hi\n");
    git(&tree, &["commit", "-q", "-a", "-m", "shorter"]);
}

#[tokio::test]
async fn a_task_starts_at_a_branch_a_tag_a_commit_or_any_reference() {
    let mut stage = Stage::new();
    let repo = stage.repo();
    let first = git(&repo, &["rev-parse", "HEAD"]);
    git(&repo, &["tag", "v1"]);
    git(&repo, &["switch", "-q", "-c", "feature/x"]);
    write(&repo, "greeting", "second\n");
    git(&repo, &["commit", "-q", "-a", "-m", "second"]);
    git(&repo, &["update-ref", "refs/pull/7/head", "HEAD"]);
    git(&repo, &["switch", "-q", "main"]);
    for (reference, text) in [
        ("main", "hello\n"),
        ("v1", "hello\n"),
        ("feature/x", "second\n"),
        ("refs/pull/7/head", "second\n"),
        (first.as_str(), "hello\n"),
        (&first[..10], "hello\n"),
        ("HEAD", "hello\n"),
    ] {
        stage.workspace.reference = Some(reference.to_owned());
        let space = stage.fresh().await;
        assert_eq!(read(space.path(), "greeting"), text, "{reference}");
        space.remove().unwrap();
    }
    stage.workspace.reference = Some("nothing-like-it".to_owned());
    let text = stage.refused().await;
    assert!(
        text.contains("has no branch, tag or commit `nothing-like-it`"),
        "{text}"
    );
}

#[tokio::test]
async fn what_came_to_the_repository_since_is_seen() {
    let stage = Stage::new();
    stage.fresh().await.remove().unwrap();
    write(&stage.repo(), "greeting", "newer\n");
    git(&stage.repo(), &["commit", "-q", "-a", "-m", "newer"]);
    let space = stage.fresh().await;
    assert_eq!(read(space.path(), "greeting"), "newer\n");
}

#[tokio::test]
async fn a_task_starts_where_another_ended_and_the_record_goes_before_the_branch() {
    let mut stage = Stage::new();
    let first = stage.fresh().await;
    write(first.path(), "greeting", "of the first\n");
    let summary = first.finish("work").await.unwrap();
    first.remove().unwrap();
    stage.workspace.from = Some("task".parse().unwrap());
    let order = Order {
        task: "second",
        ..stage.order()
    };
    let second = prepare(&order, Start::Fresh).await.unwrap();
    assert_eq!(second.base(), summary.commit);
    assert_eq!(read(second.path(), "greeting"), "of the first\n");
    // A runner that was thought dead has moved the branch since.
    git(
        &stage.repo(),
        &["branch", "-q", "-f", "air/job/task", "main"],
    );
    let order = Order {
        task: "third",
        from_commit: Some(&summary.commit),
        ..stage.order()
    };
    let third = prepare(&order, Start::Fresh).await.unwrap();
    assert_eq!(third.base(), summary.commit);
    stage.workspace.from = Some("unknown".parse().unwrap());
    let text = stage.refused().await;
    assert!(text.contains("`air/job/unknown`"), "{text}");
}

#[tokio::test]
async fn a_further_attempt_goes_on_in_the_tree_and_a_fresh_one_does_not() {
    let stage = Stage::new();
    let first = stage.fresh().await;
    let tree = first.path().to_owned();
    write(&tree, "greeting", "half done\n");
    write(&tree, "new", "not even added\n");
    write(&tree, "built", "ignored\n");
    write(first.git.dir(), "index.lock", "of a git that was killed");
    // An agent may break what it does not understand.
    fs::remove_file(tree.join(".git")).unwrap();
    fs::create_dir(tree.join(".git")).unwrap();
    // As if the runner had died: nothing is removed.
    drop(first);
    let second = stage.again(2, None).await;
    assert_eq!(
        (second.origin(), second.path()),
        (Origin::Kept, tree.as_path())
    );
    for (name, text) in [
        ("greeting", "half done\n"),
        ("new", "not even added\n"),
        ("built", "ignored\n"),
    ] {
        assert_eq!(read(&tree, name), text);
    }
    git(&tree, &["add", "new"]);
    drop(second);
    let third = stage.fresh().await;
    assert_eq!(
        (third.origin(), third.path()),
        (Origin::Fresh, tree.as_path())
    );
    assert_eq!(read(&tree, "greeting"), "hello\n");
    assert!(!tree.join("new").exists() && !tree.join("built").exists());
}

#[tokio::test]
async fn a_tree_that_was_not_whole_or_is_for_another_order_is_made_anew() {
    let mut stage = Stage::new();
    let first = stage.fresh().await;
    let (places, tree) = (first.places.clone(), first.path().to_owned());
    write(&tree, "new", "half done\n");
    drop(first);
    let mark = Mark::read(&places.mark()).unwrap();
    let torn = Mark {
        base: String::new(),
        ..mark
    };
    torn.write(&places.mark()).unwrap();
    assert_eq!(stage.again(2, None).await.origin(), Origin::Fresh);
    write(&tree, "new", "half done\n");
    stage.workspace.reference = Some("main".to_owned());
    assert_eq!(stage.again(3, None).await.origin(), Origin::Fresh);
    assert!(!tree.join("new").exists());
}

#[tokio::test]
async fn two_runners_never_work_in_one_tree_and_two_tasks_do_not_meet() {
    let stage = Stage::new();
    let first = stage.fresh().await;
    assert!(Lock::try_take(&first.places.lock()).unwrap().is_none());
    let order = Order {
        task: "other",
        ..stage.order()
    };
    let other = prepare(&order, Start::Fresh).await.unwrap();
    write(first.path(), "greeting", "mine\n");
    git(first.path(), &["stash", "-q"]);
    git(first.path(), &["switch", "-q", "-c", "main"]);
    git(first.path(), &["config", "core.editor", "false"]);
    assert_eq!(git(other.path(), &["stash", "list"]), "");
    assert_eq!(git(other.path(), &["branch"]), "* air/job/other");
    assert!(!git(other.path(), &["config", "--list"]).contains("core.editor"));
}

#[tokio::test]
async fn twenty_tasks_begin_at_once() {
    let stage = Stage::new();
    let names: Vec<String> = (0..20).map(|number| format!("t{number}")).collect();
    let begin = |task| {
        let order = Order {
            task,
            ..stage.order()
        };
        async move { prepare(&order, Start::Fresh).await.unwrap() }
    };
    let mut spaces = Vec::new();
    let all = names.iter().map(|name| Box::pin(begin(name)));
    for space in futures(all.collect()).await {
        write(space.path(), "greeting", space.branch());
        spaces.push(space);
    }
    for space in spaces {
        assert_eq!(read(space.path(), "greeting"), space.branch());
        space.remove().unwrap();
    }
    assert!(stage.is_clean());
}

/// Waits for all.
async fn futures<F: Future<Output = Space> + Unpin>(mut all: Vec<F>) -> Vec<Space> {
    let mut done = Vec::new();
    std::future::poll_fn(|context| {
        all.retain_mut(|one| match std::pin::Pin::new(one).poll(context) {
            std::task::Poll::Ready(space) => {
                done.push(space);
                false
            }
            std::task::Poll::Pending => true,
        });
        match all.is_empty() {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    done
}

#[tokio::test]
async fn hostile_names_are_refused_and_run_nothing() {
    let mut stage = Stage::new();
    let trap = stage.folder.path().join("trapped");
    let touch = format!("touch {}", trap.display());
    let good = stage.workspace.repo.clone();
    for repo in [
        format!("--upload-pack={touch}"),
        format!("ext::sh -c {touch}"),
        "relative/path".to_owned(),
        "/nowhere/at/all".to_owned(),
        ":x".to_owned(),
        "https://user:secret@host/a::b".to_owned(),
    ] {
        stage.workspace.repo = repo.clone();
        let text = stage.refused().await;
        assert!(text.contains("the repository"), "{repo}: {text}");
        assert!(!text.contains("secret"), "{text}");
    }
    stage.workspace.repo = good;
    for reference in [
        format!("--upload-pack={touch}"),
        "-c".to_owned(),
        "main:refs/heads/other".to_owned(),
        "+main".to_owned(),
        "main~1".to_owned(),
        "main^{tree}".to_owned(),
        "a..b".to_owned(),
        "@{u}".to_owned(),
        "*".to_owned(),
        String::new(),
    ] {
        stage.workspace.reference = Some(reference.clone());
        let text = stage.refused().await;
        assert!(text.contains("no name of a branch"), "{reference}: {text}");
    }
    assert!(!trap.exists());
    for (job, task) in [
        ("..", "task"),
        ("job", "../../x"),
        ("job", ""),
        ("a/b", "c"),
    ] {
        let order = Order {
            job,
            task,
            ..stage.order()
        };
        assert!(
            prepare(&order, Start::Fresh)
                .await
                .unwrap_err()
                .is_for_good()
        );
    }
}

#[tokio::test]
async fn a_base_that_others_may_write_to_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let stage = Stage::new();
    fs::create_dir(stage.base.path()).unwrap();
    fs::set_permissions(stage.base.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let text = stage.refused().await;
    assert!(text.contains("AIR_WORKSPACES"), "{text}");
    let relative = Base::new("somewhere");
    let order = Order {
        base: &relative,
        ..stage.order()
    };
    let error = prepare(&order, Start::Fresh).await.unwrap_err();
    assert!(error.to_string().contains("absolute path"), "{error}");
    let named = |_: &str| Some("/a/b".into());
    assert_eq!(Base::from_env(named), Base::new("/a/b"));
    let default = Base::from_env(|_| None);
    assert!(default.path().starts_with("/var/tmp"), "{default:?}");
}

#[test]
fn passwords_in_addresses_are_not_told() {
    for (text, clean) in [
        ("no address", "no address"),
        (
            "of 'https://me:pass@host/x': no",
            "of 'https://***@host/x': no",
        ),
        (
            "https://a:p@@h https://h/a@b",
            "https://***@h https://h/a@b",
        ),
        ("ssh://git@host", "ssh://***@host"),
    ] {
        assert_eq!(super::super::git::without_passwords(text), clean);
    }
}
