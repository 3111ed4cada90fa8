//! The Airflow backend: each runner is a run of one DAG, which starts it wherever Airflow's executor puts its task.
//!
//! A run is named by its runner, so that any manager that asks the same Airflow finds, judges and ends it. Its `conf` is the
//! claim and nothing else: what is started, and how it reaches NATS, is the business of Airflow's workers. Airflow calls
//! a run over as soon as anybody says so, also while its runner still ends its task; so the word of its task counts, which
//! tells the exit code when the runner is gone, and silence counts only after a while.

mod login;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use air_protocol::limits::START_WITHIN_CONTAINER;
use air_protocol::time::Span;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use self::login::Login;
use super::http::{Fault, Http};
use super::polled::Remote;
use super::{Exit, Later, Order, SpawnError, Spawned};
use crate::AirflowOptions;
use crate::offers::{Offer, Room};

/// Runs in one page of a list: Airflow gives no more.
const PAGE: usize = 100;
/// Time after which a run that is over without a word of its runner's end counts as ended: a worker hears within seconds that its
/// run is over, and its runner ends its task within ten more.
const SILENCE: Duration = Duration::from_secs(60);
/// The task of the DAG, and the name of its word.
const TASK: &str = "run";
const WORD: &str = "exit";

/// Starts runners as runs of a DAG.
#[derive(Debug)]
pub(crate) struct Airflow {
    name: String,
    /// The installation.
    system: String,
    options: AirflowOptions,
    http: Http,
    login: Login,
    /// When runs were first seen that are over without a word.
    silent: Mutex<HashMap<Uuid, Instant>>,
}

/// A run of the DAG.
struct Run {
    id: String,
    over: bool,
}

impl Airflow {
    /// Runners of the installation `system`.
    pub(crate) fn new(name: String, options: AirflowOptions, system: &str) -> Self {
        Self {
            name,
            system: system.to_owned(),
            http: Http::new("Airflow", &options.url),
            login: Login::new(options.login.clone()),
            options,
            silent: Mutex::default(),
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Fault> {
        self.login.ask(&self.http, method, path, body).await
    }

    /// Asks for something of the DAG.
    async fn ask_dag(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Fault> {
        let path = format!("/api/v2/dags/{}{path}", self.options.dag);
        self.ask(method, &path, body).await
    }

    /// Whether the DAG can run; gives the realm. The id of its first version is one that no other Airflow has, unless its database
    /// was copied: so the address is in it.
    async fn look_at_dag(&self) -> Result<String, Fault> {
        let (dag, at) = (&self.options.dag, self.http.base());
        let away = |why: &str| Fault::Away(format!("the DAG `{dag}` of Airflow at {at} {why}"));
        let found = match self.ask_dag(Method::GET, "", None).await {
            Err(Fault::Answer(404, _)) => {
                return Err(away(
                    "is not there; put it into the folder of DAGs (integrations/airflow)",
                ));
            }
            found => found.map_err(|fault| fault.to("cannot see the DAG"))?,
        };
        let says = |name: &str| found[name].as_bool() == Some(true);
        if says("is_paused") {
            return Err(away("is paused; unpause it"));
        }
        if says("has_import_errors") || says("is_stale") {
            return Err(away(
                "cannot be imported; look at its import errors in Airflow",
            ));
        }
        let first = "/dagVersions?order_by=version_number&limit=1";
        let versions = self.ask_dag(Method::GET, first, None).await;
        let versions = versions.map_err(|fault| fault.to("cannot see the DAG's versions"))?;
        let id = versions["dag_versions"][0]["id"].as_str();
        let id = id.ok_or_else(|| away("has no version"))?;
        Ok(format!("airflow:{id}@{at}/{dag}"))
    }

    async fn trigger(&self, order: &Order) -> Result<Spawned, SpawnError> {
        if let (Some(image), false) = (&order.image, self.options.kubernetes) {
            let text = format!(
                "the task wants the image `{image}`, but the backend `{}` runs none; name another backend, or set `kubernetes = true` where that is Airflow's executor",
                self.name
            );
            return Err(SpawnError::Refused(text));
        }
        let id = run_id(order);
        let body = json!({ "dag_run_id": id, "logical_date": null, "conf": self.conf(order) });
        match self.ask_dag(Method::POST, "/dagRuns", Some(&body)).await {
            Ok(_) => Ok(Spawned::Done),
            Err(fault @ Fault::Answer(409, _)) => {
                // It says that something is not unique, and not what: only where the run is there it was that.
                let path = format!("/dagRuns/{id}");
                match self.ask_dag(Method::GET, &path, None).await {
                    Ok(_) => Ok(Spawned::AlreadyThere),
                    Err(Fault::Answer(404, _)) => Err(fault.to("Airflow starts no run").into()),
                    Err(other) => Err(SpawnError::Unavailable(other.to_string())),
                }
            }
            Err(fault) => Err(fault.to("Airflow starts no run").into()),
        }
    }

    /// The claim. Without the job's state, which spares a runner a thousandth of what Airflow takes, and which Airflow would keep.
    fn conf(&self, order: &Order) -> Value {
        let mut conf = json!({
            "job": order.job, "seq": order.seq, "runner": order.runner, "fence": order.fence,
            "backend": order.backend, "system": self.system,
        });
        if self.options.kubernetes {
            conf["image"] = json!(order.image);
            conf["resources"] = json!(order.resources);
        }
        conf
    }

    /// The run of a runner, whoever started it.
    async fn run_of(&self, runner: Uuid) -> Result<Option<Run>, Fault> {
        let path = format!("/dagRuns?run_id_prefix_pattern=air.{runner}&limit=1");
        let found = self.ask_dag(Method::GET, &path, None).await?;
        let run = &found["dag_runs"][0];
        let (id, state) = (run["dag_run_id"].as_str(), run["state"].as_str());
        Ok(id.zip(state).map(|(id, state)| Run {
            id: id.to_owned(),
            over: matches!(state, "success" | "failed"),
        }))
    }

    async fn fail(&self, runner: Uuid) -> Result<(), Fault> {
        let Some(run) = self.run_of(runner).await? else {
            return Ok(());
        };
        if run.over {
            return Ok(());
        }
        let path = format!("/dagRuns/{}?update_mask=state", run.id);
        let body = json!({ "state": "failed" });
        match self.ask_dag(Method::PATCH, &path, Some(&body)).await {
            Ok(_) | Err(Fault::Answer(404, _)) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    async fn list(&self) -> Result<HashSet<Uuid>, Fault> {
        let mut live = HashSet::new();
        let mut offset = 0;
        loop {
            let body = json!({
                "dag_ids": [self.options.dag], "states": ["queued", "running"], "order_by": "id",
                "page_limit": PAGE, "page_offset": offset,
            });
            let path = "/api/v2/dags/~/dagRuns/list";
            let page = self.ask(Method::POST, path, Some(&body)).await?;
            let Some(runs) = page["dag_runs"].as_array() else {
                return Err(Fault::Away("Airflow lists no runs".to_owned()));
            };
            live.extend(runs.iter().filter_map(|run| runner_of(&run["dag_run_id"])));
            if runs.len() < PAGE {
                return Ok(live);
            }
            offset += runs.len();
        }
    }

    async fn exit_of(&self, runner: Uuid) -> Result<Option<Exit>, Fault> {
        let Some(run) = self.run_of(runner).await? else {
            return Ok(Some(Exit::Killed));
        };
        if !run.over {
            return Ok(None);
        }
        let path = format!(
            "/dagRuns/{}/taskInstances/{TASK}/xcomEntries/{WORD}",
            run.id
        );
        let exit = match self.ask_dag(Method::GET, &path, None).await {
            Ok(word) => Some(exit_of_word(&word["value"])),
            Err(Fault::Answer(404, _)) => self.was_silent(runner).then_some(Exit::Killed),
            Err(fault) => return Err(fault),
        };
        if exit.is_some() {
            self.silent().remove(&runner);
        }
        Ok(exit)
    }

    /// Whether a run has been over for a while without a word.
    fn was_silent(&self, runner: Uuid) -> bool {
        let mut silent = self.silent();
        // Of others that were asked for, and by now ended otherwise.
        silent.retain(|_, since| since.elapsed() < 10 * SILENCE);
        silent.entry(runner).or_insert_with(Instant::now).elapsed() >= SILENCE
    }

    fn silent(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, Instant>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The id of an order's run: by the runner, for programs; by job and fence, for people. Airflow refuses it when it is there.
fn run_id(order: &Order) -> String {
    format!("air.{}.{}.{}", order.runner, order.job, order.fence)
}

/// The runner of a run; none of one that somebody else started.
fn runner_of(id: &Value) -> Option<Uuid> {
    let (runner, _) = id.as_str()?.strip_prefix("air.")?.split_once('.')?;
    runner.parse().ok()
}

/// What the task of a run said: the exit code, or less than 0 for the signal that ended it. Airflow may hand it over as a text.
fn exit_of_word(word: &Value) -> Exit {
    let text = word.as_str().and_then(|text| text.parse().ok());
    match word.as_i64().or(text).map(i32::try_from) {
        Some(Ok(code)) if code >= 0 => Exit::Code(code),
        _ => Exit::Killed,
    }
}

impl Remote for Airflow {
    fn offer(&self) -> Offer {
        Offer {
            backend: self.name.clone(),
            images: self.options.kubernetes,
            bare: true,
            resources: self.options.kubernetes,
            realm: None,
            start_within: Span(START_WITHIN_CONTAINER),
            room: Room::Free,
        }
    }

    fn look(&self) -> Later<'_, Result<String, Fault>> {
        Box::pin(self.look_at_dag())
    }

    fn start<'a>(&'a self, order: &'a Order) -> Later<'a, Result<Spawned, SpawnError>> {
        Box::pin(self.trigger(order))
    }

    fn end(&self, runner: Uuid) -> Later<'_, Result<(), Fault>> {
        Box::pin(self.fail(runner))
    }

    fn live(&self) -> Later<'_, Result<HashSet<Uuid>, Fault>> {
        Box::pin(self.list())
    }

    fn exit(&self, runner: Uuid) -> Later<'_, Result<Option<Exit>, Fault>> {
        Box::pin(self.exit_of(runner))
    }
}

#[cfg(test)]
mod tests;
