//! Infrastructures that tell of ends by themselves, and start any image: what they have in common as a backend.
//!
//! [`Host`] is what one of them can be asked for single runners; [`Watched`] makes a [`Backend`] of it. Whoever started a
//! runner takes away what is left of it; what managers that died left, any other does ([`Others`]).

use std::collections::{HashMap, HashSet};
use std::fmt::{Debug, Display};
use std::sync::Arc;
use std::time::{Duration, Instant};

use air_protocol::limits::START_WITHIN_CONTAINER;
use air_protocol::time::Span;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{Backend, End, Exit, Later, Order, SpawnError, Spawned};
use crate::offers::{Offer, Room};
use crate::shared::now;

/// Time after which an infrastructure that was not reached is asked again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Longest time between two attempts to reach it.
const AGAIN_MAX: Duration = Duration::from_secs(10);
/// Time that the manager of a runner has to take away what is left of it.
pub(super) const OTHERS_AFTER: Duration = Duration::from_secs(60);

/// What an infrastructure is asked. Everything may be asked twice.
pub(crate) trait Host: Debug + Send + Sync + 'static {
    /// Why a request came to nothing.
    type Fault: Display + Send;

    /// A name of it that no other has; none while it is away.
    fn realm(&self) -> Option<String>;

    /// Starts a runner in this image; the same order makes no second one.
    fn start(
        &self,
        order: &Order,
        image: &str,
    ) -> impl Future<Output = Result<Spawned, SpawnError>> + Send;

    /// Tells of ends until it has to be begun anew.
    fn listen(
        &self,
        ends: &mpsc::UnboundedSender<End>,
        others: &mut Others,
    ) -> impl Future<Output = Result<(), Self::Fault>> + Send;

    /// Asks a runner that this manager started to end.
    fn terminate(&self, runner: Uuid) -> impl Future<Output = Result<(), Self::Fault>> + Send;

    /// Ends a runner, whoever started it; gives what is known of its end.
    fn end(&self, runner: Uuid) -> impl Future<Output = Result<Option<Exit>, Self::Fault>> + Send;

    /// The runners that live, whoever started them.
    fn live(&self) -> impl Future<Output = Result<HashSet<Uuid>, Self::Fault>> + Send;
}

/// A backend of an infrastructure that tells of ends.
#[derive(Debug)]
pub(crate) struct Watched<H> {
    name: String,
    /// For tasks that name none.
    image: Option<String>,
    host: H,
}

impl<H: Host> Watched<H> {
    pub(crate) fn new(name: String, image: Option<String>, host: H) -> Self {
        Self { name, image, host }
    }

    async fn start(&self, order: &Order) -> Result<Spawned, SpawnError> {
        match order.image.as_ref().or(self.image.as_ref()) {
            Some(image) => self.host.start(order, image).await,
            None => Err(SpawnError::Refused(format!(
                "the task names no image, and the backend `{}` has none for such tasks; name one",
                self.name
            ))),
        }
    }

    async fn listen_for_ever(&self, ends: &mpsc::UnboundedSender<End>) {
        let mut wait = AGAIN_AFTER;
        let mut others = Others::default();
        loop {
            let since = Instant::now();
            let heard = self.host.listen(ends, &mut others).await;
            if since.elapsed() > AGAIN_MAX {
                wait = AGAIN_AFTER;
            }
            if let Err(error) = heard {
                tracing::warn!(backend = self.name, %error, ?wait, "it does not tell of its runners; trying again");
                tokio::time::sleep(wait).await;
                wait = (2 * wait).min(AGAIN_MAX);
            }
        }
    }
}

impl<H: Host> Backend for Watched<H> {
    fn offer(&self) -> Offer {
        let realm = self.host.realm();
        let room = match realm {
            Some(_) => Room::Free,
            None => Room::Away(now().after(AGAIN_AFTER)),
        };
        Offer {
            backend: self.name.clone(),
            images: true,
            bare: self.image.is_some(),
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
        Box::pin(async move { self.listen_for_ever(&ends).await })
    }

    fn stop(&self, runner: Uuid) -> Later<'_, ()> {
        Box::pin(async move {
            if let Err(error) = self.host.terminate(runner).await {
                tracing::warn!(backend = self.name, %runner, %error, "could not ask a runner to end");
            }
        })
    }

    fn kill(&self, runner: Uuid) -> Later<'_, Option<Exit>> {
        Box::pin(async move {
            self.host.end(runner).await.unwrap_or_else(|error| {
                tracing::warn!(backend = self.name, %runner, %error, "could not look for a dead runner");
                None
            })
        })
    }

    fn gone(&self, runners: HashSet<Uuid>) -> Later<'_, HashSet<Uuid>> {
        Box::pin(async move {
            match self.host.live().await {
                Ok(live) => runners.difference(&live).copied().collect(),
                Err(_) => HashSet::new(),
            }
        })
    }

    /// Nothing: what others left is found by its age.
    fn clear(&self) -> Later<'_, ()> {
        Box::pin(async {})
    }
}

/// What is left of runners of other managers: when it was first seen over, by its id.
#[derive(Debug, Default)]
pub(crate) struct Others {
    before: HashMap<String, Instant>,
    seen: HashMap<String, Instant>,
}

impl Others {
    /// One is seen to be over; whether it has been so for this long.
    pub(crate) fn is_over_for(&mut self, id: String, limit: Duration) -> bool {
        let before = self.before.get(&id).copied();
        let since = *self
            .seen
            .entry(id)
            .or_insert_with(|| before.unwrap_or_else(Instant::now));
        since.elapsed() >= limit
    }

    /// All were looked at: what was not seen is gone.
    pub(crate) fn looked(&mut self) {
        self.before = std::mem::take(&mut self.seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_left_is_counted_from_when_it_was_first_seen() {
        const LONG: Duration = Duration::from_secs(3600);
        let mut others = Others::default();
        assert!(!others.is_over_for("a".into(), LONG));
        assert!(others.is_over_for("b".into(), Duration::ZERO));
        others.looked();
        let long_ago = Instant::now() - LONG;
        others.before.insert("a".into(), long_ago);
        assert!(others.is_over_for("a".into(), LONG));
        others.looked();
        assert!(
            !others.before.contains_key("b"),
            "it was not seen, and is gone"
        );
        assert!(others.is_over_for("a".into(), LONG));
    }
}
