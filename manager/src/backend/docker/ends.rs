//! Ends: hears of containers that end by the daemon's events, and finds by lists what it did not hear.
//!
//! The manager that started a container takes it away once its end is known. Those of managers that died are taken away by
//! any other, after a while in which their own would have done so.

use std::collections::HashSet;
use std::time::Duration;

use air_protocol::limits::START_WITHIN_CONTAINER;
use bollard::Docker as Client;
use bollard::container::LogOutput;
use bollard::models::{ContainerSummaryStateEnum as State, EventMessage};
use bollard::query_parameters::{EventsOptions, InspectContainerOptions, LogsOptions};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::link::Fault;
use super::{Docker, container};
use crate::backend::watched::{OTHERS_AFTER, Others};
use crate::backend::{End, Exit};

/// Time between two lists of all containers.
const LIST_EVERY: Duration = Duration::from_secs(10);
/// Lines of a runner's own complaints that are told when it ends badly.
const LINES_TOLD: usize = 5;

impl Docker {
    /// Listens until the link breaks.
    pub(super) async fn hear(
        &self,
        ends: &mpsc::UnboundedSender<End>,
        others: &mut Others,
    ) -> Result<(), Fault> {
        let daemon = self.link.daemon().await?;
        let filter = |name: &str, value: String| (name.to_owned(), vec![value]);
        let filters = [
            filter("type", "container".to_owned()),
            filter("event", "die".to_owned()),
            filter("label", self.parts.of_system()),
        ];
        let options = EventsOptions {
            filters: Some(filters.into()),
            ..EventsOptions::default()
        };
        let mut events = std::pin::pin!(daemon.events(Some(options)));
        let mut list = tokio::time::interval(LIST_EVERY);
        list.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => self.on_event(&daemon, &event, ends).await,
                    Some(Err(error)) => return Err(self.link.fault(error)),
                    None => return Err(Fault::Away("the daemon ended its events".to_owned())),
                },
                _ = list.tick() => self.look(&daemon, ends, others).await?,
            }
        }
    }

    async fn on_event(
        &self,
        daemon: &Client,
        event: &EventMessage,
        ends: &mpsc::UnboundedSender<End>,
    ) {
        let Some(actor) = &event.actor else { return };
        let Some(labels) = &actor.attributes else {
            return;
        };
        let Some(runner) = container::runner_of(labels) else {
            return;
        };
        let code = labels.get("exitCode").and_then(|code| code.parse().ok());
        let id = actor.id.as_deref().unwrap_or_default();
        self.on_ended(daemon, (runner, id), exit_of(code), ends)
            .await;
    }

    /// A container has ended. Those of other managers are told only where something is to be done about it: their manager may
    /// be gone as well.
    async fn on_ended(
        &self,
        daemon: &Client,
        (runner, id): (Uuid, &str),
        exit: Exit,
        ends: &mpsc::UnboundedSender<End>,
    ) {
        let is_own = self.own().remove(&runner).is_some();
        if is_own && !exit.is_clean() {
            self.tell_complaints(daemon, runner, id).await;
        }
        if is_own || !exit.is_clean() {
            let _ = ends.send(End { runner, exit });
        }
        if is_own {
            self.remove(daemon, id).await;
        }
    }

    /// What a runner said on its way out, which stands nowhere else.
    async fn tell_complaints(&self, daemon: &Client, runner: Uuid, id: &str) {
        let options = LogsOptions {
            stderr: true,
            tail: LINES_TOLD.to_string(),
            ..LogsOptions::default()
        };
        let mut lines = std::pin::pin!(daemon.logs(id, Some(options)));
        while let Some(Ok(line)) = lines.next().await {
            if let LogOutput::StdErr { message } = line {
                let said = String::from_utf8_lossy(&message);
                tracing::warn!(%runner, said = said.trim_end(), "its runner");
            }
        }
    }

    /// Looks at all containers of the installation.
    async fn look(
        &self,
        daemon: &Client,
        ends: &mpsc::UnboundedSender<End>,
        others: &mut Others,
    ) -> Result<(), Fault> {
        let before: HashSet<Uuid> = self.own().keys().copied().collect();
        let all = self.link.list(daemon, self.parts.of_system()).await?;
        let mut there = HashSet::new();
        for one in all {
            let runner = one.labels.as_ref().and_then(container::runner_of);
            let (Some(runner), Some(id)) = (runner, one.id) else {
                continue;
            };
            there.insert(runner);
            let is_own = self.own().contains_key(&runner);
            match one.state {
                Some(State::EXITED | State::DEAD) if is_own => {
                    let exit = self.exit_code(daemon, &id).await?;
                    self.on_ended(daemon, (runner, &id), exit, ends).await;
                }
                Some(State::EXITED | State::DEAD | State::CREATED) if !is_own => {
                    let limit = match one.state {
                        Some(State::CREATED) => START_WITHIN_CONTAINER + OTHERS_AFTER,
                        _ => OTHERS_AFTER,
                    };
                    if others.is_over_for(id.clone(), limit) {
                        self.remove(daemon, &id).await;
                    }
                }
                _ => {}
            }
        }
        others.looked();
        for runner in before.difference(&there) {
            // Somebody took it away. Where it ended just now its event has told, and it is nobody's own any more.
            if self.own().remove(runner).is_some() {
                let exit = Exit::Killed;
                let _ = ends.send(End {
                    runner: *runner,
                    exit,
                });
            }
        }
        Ok(())
    }

    async fn exit_code(&self, daemon: &Client, id: &str) -> Result<Exit, Fault> {
        let found = daemon.inspect_container(id, None::<InspectContainerOptions>);
        match found.await.map_err(|error| self.link.fault(error)) {
            Ok(found) => Ok(exit_of(found.state.and_then(|state| state.exit_code))),
            Err(Fault::Answer(404, _)) => Ok(Exit::Killed),
            Err(fault) => Err(fault),
        }
    }
}

/// Docker says by 128 and more that a signal ended the first process.
fn exit_of(code: Option<i64>) -> Exit {
    let code = code.and_then(|code| i32::try_from(code).ok());
    code.filter(|code| *code < 128)
        .map_or(Exit::Killed, Exit::Code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_no_exit_code() {
        assert_eq!(exit_of(Some(0)), Exit::Code(0));
        assert_eq!(exit_of(Some(69)), Exit::Code(69));
        assert_eq!(exit_of(Some(137)), Exit::Killed);
        assert_eq!(exit_of(None), Exit::Killed);
    }
}
