//! The webhook backend, with the receiver of `examples/webhook`.
//!
//! Two cases of the suite are left out, since nobody tells a manager of the end of a runner: `lost_runner` and the second half of
//! `adopt`, which ask that it is missed at once. What holds instead is asked here. `overhead` would measure the example.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use air_protocol::record::Status;
use air_tests::conformance::{Ground, Stand, until};
use air_tests::wait_for;

/// A secret of 24 bytes, and another one.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_SECRET: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A receiver of its own for each ground, which ends with it.
#[derive(Default)]
struct Hook(OnceLock<Receiver>);

struct Receiver {
    program: Child,
    address: String,
}

impl Receiver {
    fn start(ground: &Ground, runner: &Path) -> Self {
        let secret = ground.file("secret");
        std::fs::write(&secret, SECRET).unwrap();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/webhook/receiver.py");
        let mut program = Command::new("python3")
            .arg(example)
            .args(["--port", "0", "--secret-file"])
            .arg(secret)
            .arg("--runner")
            .arg(runner)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is on the PATH");
        let mut line = String::new();
        let stdout = program.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let address = line.trim().rsplit("http://").next().unwrap().to_owned();
        Self { program, address }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

impl Stand for Hook {
    fn backend(&self, ground: &Ground) -> String {
        let runner = ground.runner_of(self);
        let receiver = self.0.get_or_init(|| Receiver::start(ground, &runner));
        let gate = ground.gate(receiver.address.parse().unwrap());
        let secret = ground.file("secret");
        format!(
            "[[backend]]\nname = \"tested\"\nkind = \"webhook\"\nurl = \"http://{gate}/runners\"\nsecret_file = {secret:?}\n\
             headers = {{ x-who = \"tests\" }}"
        )
    }

    fn is_elsewhere(&self) -> bool {
        true
    }
}

air_tests::conformance!(Hook::default();
    environment subtasks job_file logs limits cancel timeout duplicate_spawn infrastructure_down refused_image
);

/// A runner that is killed is missed when its lease has ended, and its task runs again, once.
#[tokio::test]
async fn a_lost_runner_is_found_by_its_lease() {
    let stand = Hook::default();
    let mut ground = Ground::new(&stand).await;
    ground.manager_with(&stand, "", "max_runners = 1");
    let line = "test $AIR_ATTEMPT -eq 2 || sleep 600";
    ground.publish(&ground.noted("t", line)).await;
    let runner = ground.started("t", 1).await;
    stand.murder(runner);
    ground.ends_well().await;
    let records = ground.air.records("j").await;
    assert!(records[0].1.lost, "{records:?}");
    assert_eq!((ground.runs("t"), records.len()), (2, 2));
    ground.is_gone(&stand, runner).await;
}

/// The runners of a manager that was killed go on, and another manager goes on with their jobs.
#[tokio::test]
async fn runners_outlive_their_manager() {
    let stand = Hook::default();
    let mut ground = Ground::new(&stand).await;
    ground.manager(&stand, "");
    ground.publish(&ground.noted("goes-on", &until("go"))).await;
    ground.started("goes-on", 1).await;
    ground.air.managers[0].kill();
    ground.manager(&stand, "");
    ground.let_go("go");
    let ended = ground.air.wait_record("j", "goes-on", Status::Succeeded);
    ended.await;
    ground.publish(&ground.noted("next", "true")).await;
    ground.ends_well().await;
    assert_eq!((ground.runs("goes-on"), ground.runs("next")), (1, 1));
}

/// A manager without the secret starts nothing, and no attempt pays for it.
#[tokio::test]
async fn who_has_another_secret_starts_nothing() {
    let stand = Hook::default();
    let mut ground = Ground::new(&stand).await;
    ground.manager(&stand, "");
    std::fs::write(ground.file("secret"), OTHER_SECRET).unwrap();
    ground.publish(&ground.noted("t", "true")).await;
    wait_for("the receiver's answer", async || {
        let state = ground.air.state("j").await;
        let reason = state.as_ref().and_then(|state| state.start_error.clone());
        match reason.filter(|reason| reason.contains("status 401")) {
            Some(_) => Ok(()),
            None => Err(state),
        }
    })
    .await;
    assert_eq!(ground.air.state("j").await.unwrap().failed_starts, 0);
    // Read anew for each request: nobody has to start a manager for it.
    std::fs::write(ground.file("secret"), SECRET).unwrap();
    ground.ends_well().await;
    assert_eq!(
        (ground.runs("t"), ground.air.records("j").await.len()),
        (1, 1)
    );
}
