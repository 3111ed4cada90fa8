//! The Prefect backend: each runner is a flow run of one deployment, on whatever work pool.
//!
//! The deployment is made over REST where it is missing; its flow comes with our package for Prefect. A flow run is found by its
//! idempotency key, which is that of the runner: any manager that uses the same deployment can judge and end it. All that
//! is common to infrastructures that are polled is in [`super::polled`].

mod run;

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use air_protocol::limits::START_WITHIN_CONTAINER;
use air_protocol::time::Span;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use self::run::{FLOW, Run, key_of};
use super::http::{self, Fault, Http};
use super::polled::Remote;
use super::{Exit, Later, Order, SpawnError, Spawned};
use crate::offers::Offer;
use crate::{PrefectAuth, PrefectOptions};

/// Flow runs in one answer: as many as the server gives at most.
const PAGE: usize = 200;
/// Delays before a request is repeated that a busy server did not take: on SQLite a database is often locked.
const BUSY: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1600),
];

/// Starts runners as flow runs.
#[derive(Debug)]
pub(crate) struct Prefect {
    name: String,
    options: PrefectOptions,
    http: Http,
    /// Job variables of every flow run.
    variables: Value,
    /// The installation.
    system: String,
    /// Id of the deployment, as it was last seen.
    deployment: Mutex<Option<Uuid>>,
}

impl Prefect {
    /// Runners of the installation `system`, which reach NATS as `nats` says, but with credentials of their own surroundings.
    pub(crate) fn new(
        name: String,
        options: PrefectOptions,
        nats: &air_nats::Options,
        system: &str,
    ) -> Self {
        let env = http::public_env(nats, options.nats_url.as_deref(), system);
        Self {
            name,
            http: Http::new("Prefect", &options.url),
            variables: run::variables(&options.job_variables, &env),
            system: system.to_owned(),
            deployment: Mutex::default(),
            options,
        }
    }

    fn authorization(&self) -> Result<Option<String>, Fault> {
        Ok(match &self.options.auth {
            None => None,
            Some(PrefectAuth::Key(key)) => Some(format!("Bearer {}", key.read()?)),
            Some(PrefectAuth::Basic(pair)) => {
                Some(format!("Basic {}", STANDARD.encode(pair.read()?)))
            }
        })
    }

    /// Asks; once more where the server is busy, which every request here allows.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), Fault> {
        let authorization = self.authorization()?;
        let mut delays = BUSY.iter();
        loop {
            let asked = self
                .http
                .ask_for_status(method.clone(), path, authorization.as_deref(), body)
                .await;
            match (asked, delays.next()) {
                (Err(Fault::Answer(503, _)), Some(delay)) => tokio::time::sleep(*delay).await,
                (asked, _) => return asked,
            }
        }
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value, Fault> {
        let asked = self.ask(Method::POST, path, Some(body)).await;
        asked.map(|(_, answer)| answer)
    }

    async fn get(&self, path: &str) -> Result<Value, Fault> {
        let asked = self.ask(Method::GET, path, None).await;
        asked.map(|(_, answer)| answer)
    }

    /// The deployment; made where it is missing, and used as it is where it is there.
    async fn find(&self) -> Result<Uuid, Fault> {
        let PrefectOptions {
            deployment,
            work_pool,
            ..
        } = &self.options;
        let path = format!("/deployments/name/{FLOW}/{deployment}");
        let found = match self.get(&path).await {
            Err(Fault::Answer(404, _)) => self.make().await?,
            other => other?,
        };
        let pool = found["work_pool_name"].as_str().unwrap_or_default();
        if pool != work_pool {
            return Err(Fault::Away(format!(
                "the deployment `{FLOW}/{deployment}` is on the work pool `{pool}` and not on `{work_pool}`; give the backend `{}` \
                 a `deployment` of its own",
                self.name
            )));
        }
        let id = found["id"].as_str().and_then(|id| id.parse().ok());
        let id =
            id.ok_or_else(|| Fault::Away("Prefect shows a deployment without an id".into()))?;
        *self.known() = Some(id);
        Ok(id)
    }

    async fn make(&self) -> Result<Value, Fault> {
        let flow = self.post("/flows/", &json!({ "name": FLOW })).await?;
        let PrefectOptions {
            deployment,
            work_pool,
            ..
        } = &self.options;
        let body = run::deployment(deployment, &flow["id"], work_pool);
        match self.post("/deployments/", &body).await {
            Err(Fault::Answer(404, _)) => Err(no_pool(work_pool)),
            made => made.map_err(|fault| fault.to(&format!("make the deployment `{deployment}`"))),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Option<Uuid>> {
        self.deployment
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Id of the deployment.
    async fn deployment(&self) -> Result<Uuid, Fault> {
        let known = *self.known();
        match known {
            Some(id) => Ok(id),
            None => self.find().await,
        }
    }

    /// Somebody takes flow runs of the work pool now: otherwise they would wait in Prefect, where nobody else can run them.
    async fn has_workers(&self) -> Result<(), Fault> {
        let pool = &self.options.work_pool;
        let found = match self.get(&format!("/work_pools/{pool}")).await {
            Err(Fault::Answer(404, _)) => return Err(no_pool(pool)),
            other => other?,
        };
        if found["is_paused"] == true {
            return Err(Fault::Away(format!("the work pool `{pool}` is paused")));
        }
        if found["status"] == "NOT_READY" {
            return Err(Fault::Away(format!(
                "the work pool `{pool}` has no worker that is online; start one: `prefect worker start --pool {pool}`"
            )));
        }
        Ok(())
    }

    async fn spawn(&self, order: &Order) -> Result<Spawned, SpawnError> {
        if let Some(image) = order.image.as_ref().filter(|_| !self.options.images) {
            let text = format!(
                "the task wants the image `{image}`, but the work pool of the backend `{}` runs none; name another backend, or set its \
                 `images`",
                self.name
            );
            return Err(SpawnError::Refused(text));
        }
        self.has_workers().await?;
        let deployment = self.deployment().await?;
        let body = run::body(order, &self.system, &self.variables);
        let path = format!("/deployments/{deployment}/create_flow_run");
        match self.ask(Method::POST, &path, Some(&body)).await {
            Ok((201, _)) => Ok(Spawned::Done),
            Ok(_) => Ok(Spawned::AlreadyThere),
            Err(fault) => {
                *self.known() = None;
                Err(fault.to("create a flow run").into())
            }
        }
    }

    /// Flow runs that pass a filter, page by page.
    async fn list(&self, filter: &Value) -> Result<Vec<Run>, Fault> {
        let mut runs = Vec::new();
        loop {
            let body = json!({ "flow_runs": filter, "sort": "ID_DESC", "limit": PAGE, "offset": runs.len() });
            let page = self.post("/flow_runs/filter", &body).await?;
            let page = page.as_array().map(Vec::as_slice).unwrap_or_default();
            runs.extend(page.iter().map(Run::of));
            if page.len() < PAGE {
                return Ok(runs);
            }
        }
    }

    /// The flow run of a runner.
    async fn of_runner(&self, runner: Uuid) -> Result<Option<Run>, Fault> {
        let filter = json!({ "idempotency_key": { "any_": [key_of(runner)] } });
        Ok(self.list(&filter).await?.pop())
    }

    async fn cancel(&self, runner: Uuid) -> Result<(), Fault> {
        let Some(run) = self.of_runner(runner).await?.filter(|run| !run.is_over()) else {
            return Ok(());
        };
        let body =
            json!({ "state": { "type": "CANCELLING", "name": "Cancelling" }, "force": false });
        let path = format!("/flow_runs/{}/set_state", run.id);
        self.post(&path, &body).await.map(drop)
    }
}

fn no_pool(pool: &str) -> Fault {
    Fault::Away(format!(
        "Prefect has no work pool `{pool}`; make it: `prefect work-pool create {pool} --type process`, or of another type"
    ))
}

impl Remote for Prefect {
    fn offer(&self) -> Offer {
        Offer {
            images: self.options.images,
            start_within: Span(START_WITHIN_CONTAINER),
            ..Offer::plain(&self.name)
        }
    }

    fn look(&self) -> Later<'_, Result<String, Fault>> {
        Box::pin(async move { Ok(format!("prefect:{}", self.find().await?)) })
    }

    fn start<'a>(&'a self, order: &'a Order) -> Later<'a, Result<Spawned, SpawnError>> {
        Box::pin(self.spawn(order))
    }

    fn end(&self, runner: Uuid) -> Later<'_, Result<(), Fault>> {
        Box::pin(self.cancel(runner))
    }

    fn live(&self) -> Later<'_, Result<HashSet<Uuid>, Fault>> {
        Box::pin(async move {
            let deployment = self.deployment().await?;
            let filter = json!({
                "deployment_id": { "any_": [deployment] }, "state": { "type": { "not_any_": run::OVER } },
            });
            let runs = self.list(&filter).await?;
            Ok(runs.iter().filter_map(|run| run.runner).collect())
        })
    }

    fn exit(&self, runner: Uuid) -> Later<'_, Result<Option<Exit>, Fault>> {
        Box::pin(async move {
            let run = self.of_runner(runner).await?;
            Ok(run.and_then(|run| run.exit()))
        })
    }
}

#[cfg(test)]
mod tests;
