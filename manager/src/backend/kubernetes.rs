//! The Kubernetes backend: each runner is the first process of a pod of its own.
//!
//! Pods are found by their labels, so that any manager of the installation that sees the same namespace can judge and end
//! them. A start is over when the runner runs or will not: an image that cannot be had is told like any other refusal.
//! One watch tells of all pods (`ends.rs`). What a pod says is read by a pure function (`status.rs`), what it is made of
//! by another (`pod.rs`).

mod ends;
mod link;
mod pod;
mod quota;
mod status;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use air_protocol::limits::START_WITHIN_CONTAINER;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use self::link::{Fault, Link, Up};
use self::pod::{LABEL_RUNNER, Parts, runner_of};
use self::status::Seen;
use super::watched::{Host, Others};
use super::{End, Exit, Order, SpawnError, Spawned};
use crate::kubernetes_options::KubernetesOptions;

/// What is left of the time from claim to start when a start is given up.
const GIVE_UP_BEFORE: Duration = Duration::from_secs(30);

/// Starts runners as pods.
#[derive(Debug)]
pub(crate) struct Kubernetes {
    options: KubernetesOptions,
    parts: Parts,
    link: Link,
    /// The runners that this manager started.
    own: Mutex<HashMap<Uuid, Own>>,
}

/// A runner that this manager started, or is about to.
#[derive(Debug)]
struct Own {
    /// The name of its pod.
    pod: String,
    /// The pod was created: who does not see it knows that it is gone.
    created: bool,
    /// Whoever waits for its start.
    starting: Option<oneshot::Sender<Result<(), SpawnError>>>,
    /// What it waits for.
    waits_for: Option<String>,
}

impl Kubernetes {
    /// Runners of the installation `system`, which reach NATS as `nats` says.
    pub(crate) fn new(options: KubernetesOptions, nats: &air_nats::Options, system: &str) -> Self {
        Self {
            parts: Parts::new(&options, nats, system),
            link: Link::new(&options),
            options,
            own: Mutex::default(),
        }
    }

    fn own(&self) -> MutexGuard<'_, HashMap<Uuid, Own>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates the pod, and the secret that it owns.
    async fn make(&self, up: &Up, order: &Order, image: &str) -> Result<Spawned, SpawnError> {
        let (pod, spawned) = self.create(up, order, image).await?;
        if let Some(own) = self.own().get_mut(&order.runner) {
            own.created = true;
        }
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let secret = self.parts.secret(order, &uid).map_err(|error| {
            SpawnError::Unavailable(format!("failed to read the credentials of NATS: {error}"))
        })?;
        let made = up.secrets.create(&PostParams::default(), &secret).await;
        match made.map_err(|error| self.link.fault(error)) {
            Ok(_) => {}
            // By an earlier request, whose answer was lost.
            Err(Fault::Answer(409, _)) if spawned == Spawned::AlreadyThere => {}
            // That of a pod of the same name, which is collected a while after it.
            Err(Fault::Answer(409, _)) => {
                let name = order.name(self.parts.system());
                let deleted = up.secrets.delete(&name, &DeleteParams::default()).await;
                deleted.map_err(|error| self.link.fault(error))?;
                let made = up.secrets.create(&PostParams::default(), &secret).await;
                made.map_err(|error| self.link.fault(error))?;
            }
            Err(fault) => return Err(fault.into()),
        }
        if spawned == Spawned::AlreadyThere {
            self.tell_start(order.runner, &status::seen(&pod));
        }
        Ok(spawned)
    }

    async fn create(
        &self,
        up: &Up,
        order: &Order,
        image: &str,
    ) -> Result<(Pod, Spawned), SpawnError> {
        let pod = self.parts.pod(order, image);
        let mut tries = 0;
        loop {
            tries += 1;
            let fault = match up.pods.create(&PostParams::default(), &pod).await {
                Ok(made) => return Ok((made, Spawned::Done)),
                Err(error) => self.link.fault(error),
            };
            let name = order.name(self.parts.system());
            match fault {
                Fault::Answer(409, text) if tries < 3 && text.contains("already exists") => {
                    let found = up
                        .pods
                        .get_opt(&name)
                        .await
                        .map_err(|error| self.link.fault(error))?;
                    match found {
                        Some(found) if runner_of(&found) == Some(order.runner) => {
                            return Ok((found, Spawned::AlreadyThere));
                        }
                        // Of another runner: the sequences of a server that was restored come again.
                        Some(_) => self.delete(up, &name, Some(0)).await,
                        None => {}
                    }
                }
                fault => return Err(fault.of_create(image, order.resources.as_ref())),
            }
        }
    }

    /// Waits until a runner runs, or will not.
    async fn is_up(
        &self,
        runner: Uuid,
        told: oneshot::Receiver<Result<(), SpawnError>>,
    ) -> Result<(), SpawnError> {
        let within = START_WITHIN_CONTAINER.saturating_sub(GIVE_UP_BEFORE);
        match tokio::time::timeout(within, told).await {
            Ok(Ok(started)) => started,
            // It was killed or missed meanwhile, and whoever did so settles its claim.
            Ok(Err(_)) => Ok(()),
            Err(_) => {
                let waits_for = self
                    .own()
                    .get(&runner)
                    .and_then(|own| own.waits_for.clone());
                let why = waits_for.unwrap_or_else(|| "nothing is said of it".to_owned());
                let text = format!("its pod did not start within {} s: {why}", within.as_secs());
                Err(SpawnError::Unavailable(text))
            }
        }
    }

    /// Tells whoever waits for the start of a runner what is seen of it.
    fn tell_start(&self, runner: Uuid, seen: &Seen) {
        let mut all = self.own();
        let Some(own) = all.get_mut(&runner) else {
            return;
        };
        let outcome = match seen {
            Seen::Coming(waits_for) => {
                own.waits_for.clone_from(waits_for);
                return;
            }
            Seen::Stuck(error) => Err(error.clone()),
            Seen::Runs | Seen::Ended { ran: true, .. } => Ok(()),
            Seen::Ended { text, .. } => Err(SpawnError::Unavailable(format!(
                "its pod was taken away: {text}"
            ))),
        };
        if let Some(starting) = own.starting.take() {
            let _ = starting.send(outcome);
        }
    }

    /// Deletes a pod, at once or with the grace that it asks for.
    async fn delete(&self, up: &Up, name: &str, grace: Option<u32>) {
        let options = DeleteParams {
            grace_period_seconds: grace,
            ..DeleteParams::default()
        };
        if let Err(error) = up.pods.delete(name, &options).await {
            match self.link.fault(error) {
                Fault::Answer(404, _) => {}
                fault => tracing::warn!(name, error = %fault, "could not delete a pod"),
            }
        }
    }

    /// The pods with a label, whatever their state.
    async fn list(&self, up: &Up, label: &str) -> Result<(Vec<Pod>, String), Fault> {
        let listed = up.pods.list(&ListParams::default().labels(label)).await;
        let listed = listed.map_err(|error| self.link.fault(error))?;
        Ok((
            listed.items,
            listed.metadata.resource_version.unwrap_or_default(),
        ))
    }

    async fn pod_of(&self, up: &Up, runner: Uuid) -> Result<Option<Pod>, Fault> {
        let (pods, _) = self.list(up, &format!("{LABEL_RUNNER}={runner}")).await?;
        Ok(pods.into_iter().next())
    }
}

impl Host for Kubernetes {
    type Fault = Fault;

    fn realm(&self) -> Option<String> {
        self.link.realm()
    }

    async fn start(&self, order: &Order, image: &str) -> Result<Spawned, SpawnError> {
        let up = self.link.up().await?;
        let (started, told) = oneshot::channel();
        let own = Own {
            pod: order.name(self.parts.system()),
            created: false,
            starting: Some(started),
            waits_for: None,
        };
        self.own().insert(order.runner, own);
        let spawned = match self.make(&up, order, image).await {
            Ok(spawned) => self.is_up(order.runner, told).await.map(|()| spawned),
            Err(error) => Err(error),
        };
        if spawned.is_err() {
            let own = self.own().remove(&order.runner);
            if own.is_some_and(|own| own.created) {
                self.delete(&up, &order.name(self.parts.system()), Some(0))
                    .await;
            }
        }
        spawned
    }

    async fn listen(
        &self,
        ends: &mpsc::UnboundedSender<End>,
        others: &mut Others,
    ) -> Result<(), Fault> {
        self.hear(ends, others).await
    }

    async fn terminate(&self, runner: Uuid) -> Result<(), Fault> {
        let up = self.link.up().await?;
        let known = self.own().get(&runner).map(|own| own.pod.clone());
        if let Some(name) = known {
            self.delete(&up, &name, None).await;
        }
        Ok(())
    }

    /// Ends a runner, and waits for the word of its node; gives what is known of its end.
    async fn end(&self, runner: Uuid) -> Result<Option<Exit>, Fault> {
        let up = self.link.up().await?;
        let pod = self.pod_of(&up, runner).await?;
        self.own().remove(&runner);
        let Some(pod) = pod else {
            return Ok(None);
        };
        let known = match status::seen(&pod) {
            Seen::Ended { exit, .. } => Some(exit),
            _ => None,
        };
        if known.is_some() && !self.options.ttl.is_zero() {
            return Ok(known);
        }
        let name = pod.metadata.name.clone().unwrap_or_default();
        let same = Preconditions {
            uid: pod.metadata.uid.clone(),
            ..Preconditions::default()
        };
        let options = DeleteParams::default().grace_period(1).preconditions(same);
        match up
            .pods
            .delete(&name, &options)
            .await
            .map_err(|error| self.link.fault(error))
        {
            Ok(_) | Err(Fault::Answer(404 | 409, _)) => {}
            Err(fault) => return Err(fault),
        }
        if self.is_gone(&up, &pod).await? {
            return Ok(known);
        }
        self.delete(&up, &name, Some(0)).await;
        Ok(known.or(Some(Exit::NodeLost)))
    }

    async fn live(&self) -> Result<HashSet<Uuid>, Fault> {
        let up = self.link.up().await?;
        let (pods, _) = self.list(&up, &self.parts.of_system()).await?;
        let ended = |pod: &&Pod| matches!(status::seen(pod), Seen::Ended { .. });
        Ok(pods
            .iter()
            .filter(|pod| !ended(pod))
            .filter_map(runner_of)
            .collect())
    }
}
