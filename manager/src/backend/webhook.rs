//! The webhook backend: each runner is started by a request to an address of the user's, for whatever has no backend of its own.
//!
//! The receiver starts `air-runner` with the environment that the event has. Nothing is asked of it afterwards: a place is free
//! when the job's key names its runner no longer, and a lost runner is found by its lease's TTL.

mod event;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use air_protocol::limits::START_WITHIN_CONTAINER;
use air_protocol::time::Span;
use tokio::sync::mpsc;
use uuid::Uuid;

use self::event::{Event, Secret};
use super::http::{self, Fault, Http};
use super::{Backend, End, Exit, Later, Order, SpawnError, Spawned};
use crate::WebhookOptions;
use crate::offers::Offer;
use crate::shared::now;

/// Starts runners by requests.
#[derive(Debug)]
pub(crate) struct Webhook {
    name: String,
    options: WebhookOptions,
    http: Http,
    /// Where runners are to end.
    stop: Http,
    /// Where NATS is.
    env: Vec<(String, String)>,
    /// The installation.
    system: String,
}

impl Webhook {
    /// Runners of the installation `system`, which reach NATS as `nats` says, but with credentials of the receiver's.
    pub(crate) fn new(
        name: String,
        options: WebhookOptions,
        nats: &air_nats::Options,
        system: &str,
    ) -> Self {
        let env = http::public_env(nats, options.nats_url.as_deref(), system);
        let stop_url = options.stop_url.as_ref().unwrap_or(&options.url);
        Self {
            http: Http::new("the webhook", &options.url).answering_within(options.timeout),
            stop: Http::new("the webhook", stop_url).answering_within(options.timeout),
            env,
            system: system.to_owned(),
            name,
            options,
        }
    }

    async fn send(&self, to: &Http, event: &Event) -> Result<u16, Fault> {
        let text = self.options.secret.read()?;
        let secret = Secret::parse(&text).ok_or_else(|| {
            Fault::Away(format!(
                "{} holds no secret of a webhook; write `whsec_` and 24 to 64 random bytes in base64",
                self.options.secret
            ))
        })?;
        let second = now().since(air_protocol::time::Time::default()).as_secs();
        let own = self.options.headers.iter().cloned();
        let headers = own.chain(
            [
                ("content-type", "application/cloudevents+json".to_owned()),
                ("idempotency-key", event.id.clone()),
                ("webhook-id", event.id.clone()),
                ("webhook-timestamp", second.to_string()),
                ("webhook-signature", event.signature(&secret, second)),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        to.post(headers, event.body.clone()).await
    }

    async fn start(&self, order: &Order) -> Result<Spawned, SpawnError> {
        if let Some(image) = order.image.as_ref().filter(|_| !self.options.images) {
            let text = format!(
                "the task wants the image `{image}`, but the backend `{}` runs none; name another backend, or set its `images`",
                self.name
            );
            return Err(SpawnError::Refused(text));
        }
        let event = Event::start(order, &self.system, &self.env, now());
        match self.send(&self.http, &event).await {
            Ok(_) => Ok(Spawned::Done),
            Err(Fault::Answer(409, _)) => Ok(Spawned::AlreadyThere),
            Err(fault) => Err(fault.into()),
        }
    }

    async fn end(&self, runner: Uuid) {
        match self.send(&self.stop, &Event::stop(runner, now())).await {
            // It is not there, or was told before.
            Ok(_) | Err(Fault::Answer(404 | 409 | 410, _)) => {}
            Err(error) => tracing::warn!(%runner, %error, "could not ask for the end of a runner"),
        }
    }
}

impl Backend for Webhook {
    fn offer(&self) -> Offer {
        Offer {
            images: self.options.images,
            resources: self.options.resources,
            start_within: Span(START_WITHIN_CONTAINER),
            ..Offer::plain(&self.name)
        }
    }

    fn spawn_within(&self) -> Duration {
        START_WITHIN_CONTAINER
    }

    fn spawn(&self, order: Arc<Order>) -> Later<'_, Result<Spawned, SpawnError>> {
        Box::pin(async move { self.start(&order).await })
    }

    /// Nothing: nobody tells.
    fn watch(self: Arc<Self>, _: mpsc::UnboundedSender<End>) -> Later<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn tells_ends(&self) -> bool {
        false
    }

    fn stop(&self, runner: Uuid) -> Later<'_, ()> {
        Box::pin(self.end(runner))
    }

    fn kill(&self, runner: Uuid) -> Later<'_, Option<Exit>> {
        Box::pin(async move {
            self.end(runner).await;
            None
        })
    }

    /// None: nothing can be looked at.
    fn gone(&self, _: HashSet<Uuid>) -> Later<'_, HashSet<Uuid>> {
        Box::pin(async { HashSet::new() })
    }

    /// Nothing: a runner that nobody waits for ends by itself.
    fn clear(&self) -> Later<'_, ()> {
        Box::pin(async {})
    }
}
