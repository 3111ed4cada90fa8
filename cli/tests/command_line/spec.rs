//! `airx spec`: get, set and edit.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::world::{Ran, World, job, run};

/// Runs `airx spec j edit` with an editor that is this script.
fn edit(world: &World, script: &str) -> Ran {
    let editor = world.file("editor", &format!("#!/bin/sh\n{script}\n"));
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = world.command(&["spec", "j", "edit"]);
    run(command.env_remove("VISUAL").env("EDITOR", editor))
}

#[tokio::test]
async fn keys_are_set_and_shown() {
    let world = World::new().await;
    world
        .airx("spec j set timeout=5m retry.max=0 env.A=1")
        .good();
    let spec = world.airx("spec j -o json").json();
    assert_eq!(
        (&spec["timeout"], &spec["retry"]["max"], &spec["env"]["A"]),
        (&json!("5m"), &json!(0), &json!("1"))
    );
    assert!(world.airx("spec j get").good().contains("timeout: 5m\n"));
    assert!(
        world
            .airx("spec j set timeout=5m")
            .err
            .contains("so already")
    );
    assert!(
        world
            .airx("spec j set retries=1")
            .bad(2)
            .contains("unknown key `retries`")
    );
    assert!(
        world
            .airx("spec j set retry.mx=1")
            .bad(2)
            .contains("did you mean `retry.max`?")
    );
    world.airx("spec j set timeout=").good();
    assert_eq!(
        world.nats.spec(&job("j")).await.unwrap().0.unwrap().timeout,
        None
    );
}

#[tokio::test]
async fn an_editor_changes_the_spec_or_nothing() {
    let world = World::new().await;
    edit(&world, "echo 'keep: 2d' >> \"$1\"").good();
    assert!(world.airx("spec j").good().contains("keep: 2days\n"));
    assert!(edit(&world, "true").err.contains("so already"));
    let err = edit(&world, "sed -i 's/2days/1h/' \"$1\"").bad(2);
    assert!(
        err.contains("`keep` is 1h") && err.contains("nothing was changed"),
        "{err}"
    );
    assert!(edit(&world, "exit 3").bad(1).contains("failed"));
    // Told what is wrong, a person mends it in the second round.
    edit(&world, "if grep -q 'wrong:' \"$1\"; then sed -i 's/1h/3d/' \"$1\"; else sed -i 's/2days/1h/' \"$1\"; fi").good();
    assert!(world.airx("spec j").good().contains("keep: 3days\n"));
}
