//! The Docker backend: each runner is the first process of a container of its own.
//!
//! Containers are found by their labels, so that any manager of the installation that talks to the same daemon can judge
//! and end them: there is nothing to hand over when a manager dies. The runner's program comes from the machine of the
//! daemon, so that any image will do. Podman's socket answers the same requests.

mod container;
mod ends;
mod image;
mod link;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use air_protocol::limits::START_WITHIN_CONTAINER;
use air_protocol::time::Span;
use bollard::Docker as Client;
use bollard::models::ContainerSummaryStateEnum as State;
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, KillContainerOptions, RemoveContainerOptions,
    StartContainerOptions,
};
use tokio::sync::mpsc;
use uuid::Uuid;

use self::container::{LABEL_RUNNER, Parts};
use self::link::{Fault, Link};
use super::{Backend, End, Exit, Later, Order, SpawnError, Spawned};
use crate::DockerOptions;
use crate::offers::{Offer, Room};
use crate::shared::now;

/// Time after which a daemon that was not reached is asked again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Starts runners as containers.
#[derive(Debug)]
pub(crate) struct Docker {
    name: String,
    options: DockerOptions,
    parts: Parts,
    link: Link,
    /// The runners that this manager started, and the names of their containers.
    own: Mutex<HashMap<Uuid, String>>,
}

impl Docker {
    /// Runners of the installation `system`, which reach NATS as `nats` says.
    pub(crate) fn new(
        name: String,
        options: DockerOptions,
        nats: &air_nats::Options,
        system: &str,
    ) -> Self {
        Self {
            name,
            parts: Parts::new(&options, nats, system),
            link: Link::new(options.host.clone()),
            options,
            own: Mutex::default(),
        }
    }

    fn own(&self) -> MutexGuard<'_, HashMap<Uuid, String>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn start(&self, order: &Order) -> Result<Spawned, SpawnError> {
        let Some(image) = order.image.as_ref().or(self.options.image.as_ref()) else {
            let text = format!(
                "the task names no image, and the backend `{}` has none for such tasks; name one",
                self.name
            );
            return Err(SpawnError::Refused(text));
        };
        let daemon = self.link.daemon().await.map_err(SpawnError::from)?;
        let name = order.name(self.parts.system());
        let spawned = match self.create(&daemon, order, image, &name).await? {
            Created::New => Spawned::Done,
            Created::Before => Spawned::AlreadyThere,
            Created::Ran => return Ok(Spawned::AlreadyThere),
        };
        self.own().insert(order.runner, name.clone());
        match daemon
            .start_container(&name, None::<StartContainerOptions>)
            .await
        {
            Ok(()) => Ok(spawned),
            Err(error) => {
                self.own().remove(&order.runner);
                let fault = self.link.fault(error);
                self.remove(&daemon, &name).await;
                Err(fault.of_start(image).into())
            }
        }
    }

    async fn create(
        &self,
        daemon: &Client,
        order: &Order,
        image: &str,
        name: &str,
    ) -> Result<Created, SpawnError> {
        let options = || CreateContainerOptions {
            name: Some(name.to_owned()),
            ..CreateContainerOptions::default()
        };
        if self.options.pull == crate::Pull::Always {
            image::pull(&self.link, daemon, image).await?;
        }
        let mut tries = 0;
        loop {
            tries += 1;
            let body = self.parts.body(order, image);
            let error = match daemon.create_container(Some(options()), body).await {
                Ok(_) => return Ok(Created::New),
                Err(error) => self.link.fault(error),
            };
            match &error {
                Fault::Answer(404, _) if tries == 1 && self.options.pull.is_allowed() => {
                    image::pull(&self.link, daemon, image).await?;
                }
                Fault::Answer(409, _) if tries < 3 => {
                    if let Some(created) = self.found(daemon, order, name).await? {
                        return Ok(created);
                    }
                }
                _ => return Err(error.of_create(image).into()),
            }
        }
    }

    /// What stands under the name of an order already; none where that was of another runner, and is away now: the sequences of
    /// a server that was restored come again.
    async fn found(
        &self,
        daemon: &Client,
        order: &Order,
        name: &str,
    ) -> Result<Option<Created>, SpawnError> {
        let found = daemon
            .inspect_container(name, None::<InspectContainerOptions>)
            .await
            .map_err(|error| SpawnError::from(self.link.fault(error)))?;
        let labels = found.config.and_then(|config| config.labels);
        let runner = labels.as_ref().and_then(|labels| labels.get(LABEL_RUNNER));
        if runner.is_some_and(|runner| *runner == order.runner.to_string()) {
            let state = found.state.and_then(|state| state.status);
            let waits = state == Some(bollard::models::ContainerStateStatusEnum::CREATED);
            return Ok(Some(if waits { Created::Before } else { Created::Ran }));
        }
        self.remove(daemon, name).await;
        Ok(None)
    }

    async fn remove(&self, daemon: &Client, name: &str) {
        let options = RemoveContainerOptions {
            v: true,
            force: true,
            link: false,
        };
        if let Err(error) = daemon.remove_container(name, Some(options)).await {
            match self.link.fault(error) {
                Fault::Answer(404 | 409, _) => {}
                fault => tracing::warn!(name, error = %fault, "could not remove a container"),
            }
        }
    }

    /// The container of a runner, whoever started it.
    async fn container_of(&self, daemon: &Client, runner: Uuid) -> Result<Option<String>, Fault> {
        let known = self.own().get(&runner).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let label = format!("{LABEL_RUNNER}={runner}");
        let all = self.link.list(daemon, label).await?;
        Ok(all.into_iter().find_map(|one| one.id))
    }

    async fn end(&self, runner: Uuid) -> Result<(), Fault> {
        let daemon = self.link.daemon().await?;
        if let Some(container) = self.container_of(&daemon, runner).await? {
            self.remove(&daemon, &container).await;
        }
        self.own().remove(&runner);
        Ok(())
    }

    async fn terminate(&self, runner: Uuid) -> Result<(), Fault> {
        let daemon = self.link.daemon().await?;
        let Some(container) = self.container_of(&daemon, runner).await? else {
            return Ok(());
        };
        let signal = "SIGTERM".to_owned();
        let killed = daemon.kill_container(&container, Some(KillContainerOptions { signal }));
        killed.await.map_err(|error| self.link.fault(error))
    }

    async fn lives(&self) -> Result<HashSet<Uuid>, Fault> {
        let daemon = self.link.daemon().await?;
        let all = self.link.list(&daemon, self.parts.of_system()).await?;
        let ended = |state| matches!(state, Some(State::EXITED | State::DEAD | State::REMOVING));
        let lives = all.into_iter().filter(|one| !ended(one.state));
        Ok(lives
            .filter_map(|one| container::runner_of(one.labels.as_ref()?))
            .collect())
    }
}

/// What became of a container that was to be created.
enum Created {
    New,
    /// By an earlier request; it is to be started.
    Before,
    /// By an earlier request, and started.
    Ran,
}

impl Backend for Docker {
    fn offer(&self) -> Offer {
        let realm = self.link.realm();
        let room = match realm {
            Some(_) => Room::Free,
            None => Room::Away(now().after(AGAIN_AFTER)),
        };
        Offer {
            backend: self.name.clone(),
            images: true,
            bare: self.options.image.is_some(),
            resources: true,
            realm,
            start_within: Span(START_WITHIN_CONTAINER),
            room,
        }
    }

    fn spawn_within(&self) -> Duration {
        START_WITHIN_CONTAINER
    }

    fn spawn(&self, order: Arc<Order>) -> Later<'_, Result<Spawned, SpawnError>> {
        Box::pin(async move { self.start(&order).await })
    }

    fn watch(self: Arc<Self>, ends: mpsc::UnboundedSender<End>) -> Later<'static, ()> {
        Box::pin(async move { self.watch_for_ever(&ends).await })
    }

    fn stop(&self, runner: Uuid) -> Later<'_, ()> {
        Box::pin(async move {
            if let Err(error) = self.terminate(runner).await {
                tracing::warn!(%runner, %error, "could not ask a container to end");
            }
        })
    }

    fn kill(&self, runner: Uuid) -> Later<'_, Option<Exit>> {
        Box::pin(async move {
            if let Err(error) = self.end(runner).await {
                tracing::warn!(%runner, %error, "could not look for the container of a dead runner");
            }
            None
        })
    }

    fn gone(&self, runners: HashSet<Uuid>) -> Later<'_, HashSet<Uuid>> {
        Box::pin(async move {
            match self.lives().await {
                Ok(live) => runners.difference(&live).copied().collect(),
                Err(_) => HashSet::new(),
            }
        })
    }

    /// Nothing: what others left is found by its age (`ends.rs`).
    fn clear(&self) -> Later<'_, ()> {
        Box::pin(async {})
    }
}
