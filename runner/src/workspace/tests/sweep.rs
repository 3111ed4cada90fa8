//! What dead runners left, and what is never removed.

use std::time::Duration;

use super::super::sweep::{forget_repositories, leftovers};
use super::*;

#[tokio::test]
async fn what_a_dead_runner_left_is_found_and_removed_but_never_under_a_living_one() {
    let stage = Stage::new();
    assert_eq!(leftovers(&stage.base).unwrap().len(), 0);
    let space = stage.fresh().await;
    // An agent takes rights away, and links to what is not its own.
    let locked = space.path().join("locked");
    fs::create_dir(&locked).unwrap();
    write(&locked, "file", "text");
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o500)).unwrap();
    std::os::unix::fs::symlink(stage.repo(), space.path().join("link")).unwrap();
    let [found] = &leftovers(&stage.base).unwrap()[..] else {
        panic!("one task");
    };
    let whose = (
        found.system.as_str(),
        found.job.as_str(),
        found.task.as_str(),
    );
    assert_eq!(whose, ("ours", "job", "task"));
    assert_eq!(found.path(), space.path());
    assert!(found.is_in_use().unwrap() && !found.remove().unwrap());
    assert!(space.path().join("greeting").exists());
    drop(space);
    assert!(!found.is_in_use().unwrap());
    assert!(!super::super::sweep::remove(&stage.base, "theirs", "job", "task").unwrap());
    assert!(super::super::sweep::remove(&stage.base, "ours", "job", "task").unwrap());
    assert!(stage.is_clean() && stage.repo().join("greeting").exists());
    assert!(!found.remove().unwrap(), "it is gone");
}

#[tokio::test]
async fn what_does_not_bear_our_mark_stays() {
    let stage = Stage::new();
    let space = stage.fresh().await;
    let places = space.places.clone();
    drop(space);
    let foreign = stage.base.tasks().join("x/y/z");
    fs::create_dir_all(&foreign).unwrap();
    let mark = read(&places.meta, "mark.json");
    let of = |who: &str| mark.replace("\"air-runner\"", who);
    write(&foreign, "mark.json", &of("\"somebody\""));
    let moved = stage.base.tasks().join("x/y/moved");
    fs::create_dir_all(&moved).unwrap();
    fs::copy(places.mark(), moved.join("mark.json")).unwrap();
    let found = leftovers(&stage.base).unwrap();
    assert_eq!(found.len(), 1);
    write(&places.meta, "mark.json", &of("\"somebody\""));
    assert!(!found[0].remove().unwrap());
    assert!(places.tree.exists() && foreign.exists() && moved.exists());
}

#[tokio::test]
async fn repositories_that_nobody_uses_are_forgotten_and_tasks_do_not_miss_them() {
    let stage = Stage::new();
    let space = stage.fresh().await;
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(forget_repositories(&stage.base, day).unwrap(), 0);
    assert_eq!(forget_repositories(&stage.base, Duration::ZERO).unwrap(), 1);
    assert_eq!(fs::read_dir(stage.base.repos()).unwrap().count(), 0);
    // The objects of the task are its own.
    write(space.path(), "new", "work\n");
    git(space.path(), &["fsck", "--connectivity-only"]);
    space.finish("rest").await.unwrap();
    space.remove().unwrap();
    stage.fresh().await.remove().unwrap();
    assert!(stage.is_clean());
}
