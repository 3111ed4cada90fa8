//! A node that does not answer: on its own, since every other test needs the only node that there is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

use air_kubernetes::Pods;
use air_tests::conformance::{Ground, Stand as _};
use air_tests::{pids, wait_for_within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The kubelet, frozen until this is dropped.
struct Frozen(Pid);

impl Frozen {
    fn new() -> Self {
        let is_kubelet = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0);
            words.nth(1) == Some(b"kubelet".as_slice())
        };
        let pid = pids()
            .find(is_kubelet)
            .expect("a kubelet runs on this machine");
        let frozen = Self(Pid::from_raw(pid.cast_signed()));
        kill(frozen.0, Signal::SIGSTOP).unwrap();
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// A runner that is lost with its node: the record says so, and its task runs again once there is a node.
#[tokio::test]
async fn a_runner_that_is_lost_with_its_node_is_told_from_others() {
    let mut ground = Ground::new(&Pods).await;
    ground.manager(&Pods, "");
    ground
        .publish(&ground.noted("t", "test $AIR_ATTEMPT -eq 2 || sleep 600"))
        .await;
    let runner = ground.started("t", 1).await;
    let frozen = Frozen::new();
    Pods.murder(runner);
    let within = std::time::Duration::from_secs(90);
    let first = wait_for_within(within, "record of the lost runner", async || {
        let records = ground.air.records("j").await;
        records.into_iter().next().ok_or("none")
    })
    .await;
    drop(frozen);
    let error = first.1.error.as_deref().unwrap_or_default();
    assert!(
        first.1.lost && error.contains("its node was lost"),
        "{first:?}"
    );
    ground.air.wait_completed_within("j", within).await;
    ground.is_gone(&Pods, runner).await;
}
