//! Ends: one watch tells of all pods of the installation; a list before each watch finds what was not heard.
//!
//! The manager that started a pod deletes it once its end is known, or lets it stand for its TTL. Those of managers that
//! died are deleted by any other, after a while in which their own would have done so.

use std::collections::HashSet;

use air_protocol::limits::START_WITHIN_CONTAINER;
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{LogParams, WatchEvent, WatchParams};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::Kubernetes;
use super::link::{Fault, Up};
use super::pod::{TASK, runner_of};
use super::status::{self, Seen};
use crate::backend::watched::{OTHERS_AFTER, Others};
use crate::backend::{End, Exit};

/// Time, in seconds, after which a watch is begun anew, with a list before it.
const WATCH_S: u32 = 60;
/// Time, in seconds, that a node gets to say that a pod has ended which was deleted.
const NODE_SAYS_S: u32 = 15;
/// Lines of a runner's own complaints that are told when it ends badly.
const LINES_TOLD: i64 = 5;

impl Kubernetes {
    /// Lists, and listens until the watch ends.
    pub(super) async fn hear(
        &self,
        ends: &mpsc::UnboundedSender<End>,
        others: &mut Others,
    ) -> Result<(), Fault> {
        let up = self.link.up().await?;
        let version = self.look(&up, ends, others).await?;
        let label = self.parts.of_system();
        let options = WatchParams::default().labels(&label).timeout(WATCH_S);
        let events = up.pods.watch(&options, &version).await;
        let mut events = std::pin::pin!(events.map_err(|error| self.link.fault(error))?);
        while let Some(event) = events.next().await {
            match event.map_err(|error| self.link.fault(error))? {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                    self.on_pod(&up, &pod, status::seen(&pod), ends).await;
                }
                WatchEvent::Deleted(pod) => {
                    self.on_pod(&up, &pod, status::of_deleted(&pod), ends).await;
                }
                WatchEvent::Bookmark(_) => {}
                // Such as 410: what was listed is too old by now.
                WatchEvent::Error(status) => {
                    return Err(Fault::Answer(status.code, status.message));
                }
            }
        }
        Ok(())
    }

    async fn on_pod(&self, up: &Up, pod: &Pod, seen: Seen, ends: &mpsc::UnboundedSender<End>) {
        let Some(runner) = runner_of(pod) else {
            return;
        };
        self.tell_start(runner, &seen);
        if let Seen::Ended { exit, text, ran } = seen {
            self.on_ended(up, pod, runner, (exit, ran, &text), ends)
                .await;
        }
    }

    /// A pod has ended. Those of other managers are told only where something is to be done about it: their manager may be
    /// gone as well.
    async fn on_ended(
        &self,
        up: &Up,
        pod: &Pod,
        runner: Uuid,
        (exit, ran, text): (Exit, bool, &str),
        ends: &mpsc::UnboundedSender<End>,
    ) {
        let is_own = self.own().remove(&runner).is_some();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        if is_own && !exit.is_clean() {
            tracing::warn!(%runner, pod = name, ?exit, text, "a pod ended badly");
            self.tell_complaints(up, runner, name).await;
        }
        // Who waits for its start was told why there is none.
        let told = ran || !is_own;
        if told && (is_own || !exit.is_clean()) {
            let _ = ends.send(End { runner, exit });
        }
        if is_own && self.options.ttl.is_zero() {
            self.delete(up, name, None).await;
        }
    }

    /// What a runner said on its way out, which stands nowhere else.
    async fn tell_complaints(&self, up: &Up, runner: Uuid, name: &str) {
        let options = LogParams {
            container: Some(TASK.to_owned()),
            tail_lines: Some(LINES_TOLD),
            ..LogParams::default()
        };
        let Ok(said) = up.pods.logs(name, &options).await else {
            return;
        };
        for line in said.lines() {
            tracing::warn!(%runner, said = line.trim_end(), "its runner");
        }
    }

    /// Looks at all pods of the installation; gives the version from which a watch goes on.
    async fn look(
        &self,
        up: &Up,
        ends: &mpsc::UnboundedSender<End>,
        others: &mut Others,
    ) -> Result<String, Fault> {
        let before: HashSet<Uuid> = self.created().collect();
        let (pods, version) = self.list(up, &self.parts.of_system()).await?;
        let mut there = HashSet::new();
        for pod in &pods {
            let Some(runner) = runner_of(pod) else {
                continue;
            };
            there.insert(runner);
            let seen = status::seen(pod);
            if self.own().contains_key(&runner) {
                self.on_pod(up, pod, seen, ends).await;
                continue;
            }
            let limit = match seen {
                Seen::Runs => continue,
                Seen::Ended { .. } => OTHERS_AFTER.max(self.options.ttl),
                Seen::Coming(_) | Seen::Stuck(_) => START_WITHIN_CONTAINER + OTHERS_AFTER,
            };
            let id = pod.metadata.uid.clone().unwrap_or_default();
            if others.is_over_for(id, limit) {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                self.delete(up, name, None).await;
            }
        }
        others.looked();
        for runner in before.difference(&there) {
            // Somebody deleted it. Where it ended just now its event has told, and it is nobody's own any more.
            if self.own().remove(runner).is_some() {
                let exit = Exit::Killed;
                let _ = ends.send(End {
                    runner: *runner,
                    exit,
                });
            }
        }
        Ok(version)
    }

    /// The runners of this manager whose pods were there.
    fn created(&self) -> impl Iterator<Item = Uuid> + use<> {
        let own = self.own();
        let created = own.iter().filter(|(_, own)| own.created);
        created
            .map(|(runner, _)| *runner)
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// Waits until a pod that was deleted is gone; whether it is. Its node has ended it then.
    pub(super) async fn is_gone(&self, up: &Up, pod: &Pod) -> Result<bool, Fault> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let field = format!("metadata.name={name}");
        let version = pod.metadata.resource_version.as_deref().unwrap_or("0");
        let options = WatchParams::default().fields(&field).timeout(NODE_SAYS_S);
        let events = up.pods.watch(&options, version).await;
        let mut events = std::pin::pin!(events.map_err(|error| self.link.fault(error))?);
        while let Some(Ok(event)) = events.next().await {
            if let WatchEvent::Deleted(_) = event {
                return Ok(true);
            }
        }
        let left = up
            .pods
            .get_opt(name)
            .await
            .map_err(|error| self.link.fault(error))?;
        Ok(left.is_none_or(|left| left.metadata.uid != pod.metadata.uid))
    }
}
