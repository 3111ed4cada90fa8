//! What is said to Prefect of a flow run, and what it says: pure functions of an order, and of answers.

use std::fmt::Display;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::backend::{Exit, Order};

/// The flow of all runners.
pub(super) const FLOW: &str = "air-runner";
/// Where our package for Prefect has it.
const ENTRYPOINT: &str = "prefect_air_executor.runner.air_runner";
/// States of flow runs that are over.
pub(super) const OVER: [&str; 4] = ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"];
/// What the keys of all runners begin with.
const KEY: &str = "air-runner:";
/// What stands before the code in the message of a flow run whose runner ended badly.
const CODE: &str = "exit code ";

/// A flow run, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) id: String,
    /// Its runner; none where it is nobody's, such as one that a person started.
    pub(super) runner: Option<Uuid>,
    state: String,
    message: String,
}

impl Run {
    /// Reads it from an answer.
    pub(super) fn of(answer: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let key = text(&answer["idempotency_key"]);
        Self {
            id: text(&answer["id"]),
            runner: key.strip_prefix(KEY).and_then(|id| id.parse().ok()),
            state: text(&answer["state_type"]),
            message: text(&answer["state"]["message"]),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        OVER.contains(&self.state.as_str())
    }

    /// How its runner ended; none where the flow run is not over.
    pub(super) fn exit(&self) -> Option<Exit> {
        if self.state == "COMPLETED" {
            return Some(Exit::Code(0));
        }
        let code = self.message.split_once(CODE).map_or("", |(_, rest)| rest);
        let code: String = code.chars().take_while(char::is_ascii_digit).collect();
        let exit = code.parse().map_or(Exit::Killed, Exit::Code);
        self.is_over().then_some(exit)
    }
}

/// The idempotency key of a runner: an id that no other has, whatever sequences come again.
pub(super) fn key_of(runner: impl Display) -> String {
    format!("{KEY}{runner}")
}

/// The deployment that is made where there is none.
pub(super) fn deployment(name: &str, flow: &Value, work_pool: &str) -> Value {
    let text = json!({ "type": "string" });
    let number = json!({ "type": "integer" });
    json!({
        "name": name, "flow_id": flow, "work_pool_name": work_pool, "entrypoint": ENTRYPOINT, "tags": ["air-executor"],
        "description": "Runs the runners of Air-Executor. Made by a manager; its flow runs are not for people to create.",
        "enforce_parameter_schema": true,
        "parameter_openapi_schema": {
            "title": "Claim", "type": "object",
            "properties": { "job": text, "seq": number, "runner": text, "fence": number, "backend": text },
            "required": ["job", "seq", "runner", "fence", "backend"],
        },
    })
}

/// The job variables of all flow runs: those that were configured, with `env` below those of their own.
pub(super) fn variables(configured: &Map<String, Value>, env: &[(String, String)]) -> Value {
    let mut variables = configured.clone();
    let mut all: Map<String, Value> = env
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().into()))
        .collect();
    if let Some(Value::Object(own)) = variables.remove("env") {
        all.extend(own);
    }
    variables.insert("env".to_owned(), all.into());
    variables.into()
}

/// The flow run of an order.
pub(super) fn body(order: &Order, system: &str, variables: &Value) -> Value {
    let mut variables = variables.clone();
    if let Some(image) = &order.image {
        variables["image"] = image.as_str().into();
    }
    json!({
        "name": order.name(system),
        "idempotency_key": key_of(order.runner),
        "parameters": {
            "job": order.job, "seq": order.seq, "runner": order.runner, "fence": order.fence, "backend": order.backend,
        },
        "job_variables": variables,
    })
}
