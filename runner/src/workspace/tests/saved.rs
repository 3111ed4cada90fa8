//! Work that goes on on another host.

use super::*;

/// Another host: the same repository, a base of its own in the same place is not needed for the test.
fn elsewhere(stage: &Stage) -> Base {
    Base::new(stage.folder.path().join("elsewhere"))
}

async fn restore(stage: &Stage, base: &Base, saved: &Path) -> Space {
    let order = Order {
        base,
        attempt: 2,
        ..stage.order()
    };
    let saved = Some((1, saved));
    prepare(&order, Start::Resume { saved }).await.unwrap()
}

#[tokio::test]
async fn commits_and_uncommitted_files_go_on_on_another_host() {
    let stage = Stage::new();
    let (base, file) = (elsewhere(&stage), stage.folder.path().join("saved"));
    let space = stage.fresh().await;
    write(space.path(), "new", "committed\n");
    git(space.path(), &["add", "."]);
    git(space.path(), &["commit", "-q", "-m", "by the agent"]);
    write(space.path(), "greeting", "changed\n");
    write(space.path(), "other", "not added\n");
    let before = git(space.path(), &["status", "--porcelain"]);
    space.save(&file).await.unwrap();
    assert_eq!(git(space.path(), &["status", "--porcelain"]), before);
    // The repository goes on meanwhile: the start stays where it was.
    write(&stage.repo(), "greeting", "newer\n");
    git(&stage.repo(), &["commit", "-q", "-a", "-m", "newer"]);
    let other = restore(&stage, &base, &file).await;
    assert_eq!(
        (other.origin(), other.base()),
        (Origin::Restored, space.base())
    );
    assert_eq!(git(other.path(), &["status", "--porcelain"]), before);
    assert_eq!(
        git(other.path(), &["branch", "--show-current"]),
        "air/job/task"
    );
    let log = git(other.path(), &["log", "--format=%s"]);
    assert_eq!(log, "by the agent\nfirst");
    assert_eq!(git(other.path(), &["for-each-ref", "refs/air/saved"]), "");
    let summary = other.finish("rest").await.unwrap();
    assert_eq!(summary.files_changed, 3);
}

#[tokio::test]
async fn nothing_done_yet_can_be_saved_and_a_merge_stays_one() {
    let stage = Stage::new();
    let (base, file) = (elsewhere(&stage), stage.folder.path().join("saved"));
    let space = stage.fresh().await;
    space.save(&file).await.unwrap();
    let other = restore(&stage, &base, &file).await;
    assert_eq!(git(other.path(), &["status", "--porcelain"]), "");
    git(&stage.repo(), &["switch", "-q", "-c", "side"]);
    write(&stage.repo(), "side", "text\n");
    git(&stage.repo(), &["add", "."]);
    git(&stage.repo(), &["commit", "-q", "-m", "side"]);
    let third = stage.fresh_again(space).await;
    git(
        third.path(),
        &["merge", "-q", "--no-commit", "--no-ff", "origin/side"],
    );
    third.save(&file).await.unwrap();
    other.remove().unwrap();
    let merged = restore(&stage, &base, &file).await;
    assert_eq!(merged.origin(), Origin::Restored);
    let summary = merged.finish("merged").await.unwrap();
    let parents = git(
        &stage.repo(),
        &["log", "-1", "--format=%p", &summary.commit],
    );
    assert_eq!(parents.split(' ').count(), 2, "{parents}");
}

impl Stage {
    async fn fresh_again(&self, space: Space) -> Space {
        drop(space);
        git(&self.repo(), &["switch", "-q", "main"]);
        self.fresh().await
    }
}

#[tokio::test]
async fn the_younger_of_the_tree_and_the_saved_file_is_gone_on_with() {
    let stage = Stage::new();
    let file = stage.folder.path().join("saved");
    let space = stage.fresh().await;
    write(space.path(), "new", "saved\n");
    space.save(&file).await.unwrap();
    write(space.path(), "new", "later\n");
    drop(space);
    let kept = stage.again(2, Some((1, &file))).await;
    assert_eq!(
        (kept.origin(), read(kept.path(), "new").as_str()),
        (Origin::Kept, "later\n")
    );
    drop(kept);
    // Attempt 3 was on another host, and saved.
    let restored = stage.again(4, Some((3, &file))).await;
    assert_eq!(restored.origin(), Origin::Restored);
    assert_eq!(read(restored.path(), "new"), "saved\n");
}

#[tokio::test]
async fn a_file_that_is_no_saved_tree_is_told() {
    let stage = Stage::new();
    let file = stage.folder.path().join("saved");
    let mut texts = vec![b"no bundle".to_vec()];
    git(
        &stage.repo(),
        &["bundle", "create", "-q", "../bundle", "main"],
    );
    texts.push(fs::read(stage.folder.path().join("bundle")).unwrap());
    for text in texts {
        fs::write(&file, text).unwrap();
        let saved = Some((1, file.as_path()));
        let error = prepare(&stage.order(), Start::Resume { saved })
            .await
            .unwrap_err();
        assert!(error.to_string().contains("saved working tree"), "{error}");
    }
}
