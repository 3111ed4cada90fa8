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
use std::sync::{Mutex, MutexGuard, PoisonError};

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
use super::watched::{Host, Others};
use super::{End, Exit, Order, SpawnError, Spawned};
use crate::DockerOptions;

/// Starts runners as containers.
#[derive(Debug)]
pub(crate) struct Docker {
    options: DockerOptions,
    parts: Parts,
    link: Link,
    /// The runners that this manager started, and the names of their containers.
    own: Mutex<HashMap<Uuid, String>>,
}

impl Docker {
    /// Runners of the installation `system`, which reach NATS as `nats` says.
    pub(crate) fn new(options: DockerOptions, nats: &air_nats::Options, system: &str) -> Self {
        Self {
            parts: Parts::new(&options, nats, system),
            link: Link::new(options.host.clone()),
            options,
            own: Mutex::default(),
        }
    }

    fn own(&self) -> MutexGuard<'_, HashMap<Uuid, String>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
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
}

/// What became of a container that was to be created.
enum Created {
    New,
    /// By an earlier request; it is to be started.
    Before,
    /// By an earlier request, and started.
    Ran,
}

impl Host for Docker {
    type Fault = Fault;

    fn realm(&self) -> Option<String> {
        self.link.realm()
    }

    async fn start(&self, order: &Order, image: &str) -> Result<Spawned, SpawnError> {
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

    async fn listen(
        &self,
        ends: &mpsc::UnboundedSender<End>,
        others: &mut Others,
    ) -> Result<(), Fault> {
        self.hear(ends, others).await
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

    async fn end(&self, runner: Uuid) -> Result<Option<Exit>, Fault> {
        let daemon = self.link.daemon().await?;
        if let Some(container) = self.container_of(&daemon, runner).await? {
            self.remove(&daemon, &container).await;
        }
        self.own().remove(&runner);
        Ok(None)
    }

    async fn live(&self) -> Result<HashSet<Uuid>, Fault> {
        let daemon = self.link.daemon().await?;
        let all = self.link.list(&daemon, self.parts.of_system()).await?;
        let ended = |state| matches!(state, Some(State::EXITED | State::DEAD | State::REMOVING));
        let live = all.into_iter().filter(|one| !ended(one.state));
        Ok(live
            .filter_map(|one| container::runner_of(one.labels.as_ref()?))
            .collect())
    }
}
