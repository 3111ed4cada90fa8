//! The tools outside a task: over NATS, with the rights of whoever started the server.

use std::time::Duration;

use air_nats::Nats;
use air_protocol::names::{JobName, TaskId};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rmcp::model::JsonObject;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::inside::arguments;
use super::order::{Caller, Order, orders};
use super::tools::LISTED_MAX;
use crate::task_view::{Known, TaskView};
use crate::verbs::show;

/// Tasks that may be on their way at once.
const WINDOW: usize = 64;
/// Time for which a task is sent again: below the two minutes for which NATS remembers its id.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an output that a result shows.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// A user's own rights.
#[derive(Debug)]
pub(super) struct Outside {
    nats: Nats,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    job: JobName,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    after: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reads {
    job: JobName,
    task: TaskId,
}

impl Outside {
    pub(super) fn new(nats: Nats) -> Self {
        Self { nats }
    }

    /// Calls a tool; none when there is no such tool.
    pub(super) async fn call(
        &self,
        tool: &str,
        arguments: JsonObject,
        call: Option<String>,
    ) -> Option<Result<String, String>> {
        Some(match tool {
            "queue_task" => self.queue(false, arguments, call).await,
            "queue_tasks" => self.queue(true, arguments, call).await,
            "list_tasks" => self.list(arguments).await,
            "read_result" => self.read_result(arguments).await,
            _ => return None,
        })
    }

    async fn queue(
        &self,
        many: bool,
        arguments: JsonObject,
        call: Option<String>,
    ) -> Result<String, String> {
        let scope = String::new();
        let orders = orders(many, arguments, None, &Caller { scope, call })?;
        let named = |order: &Order| json!({"job": order.job, "task": order.id});
        let named: Vec<_> = orders.iter().map(named).collect();
        let sent: Result<Vec<()>, String> = stream::iter(orders)
            .map(|order| self.publish(order))
            .buffered(WINDOW)
            .try_collect()
            .await;
        sent?;
        Ok(json!({"queued": named}).to_string())
    }

    /// The id of the task names its message, so that NATS drops it when it comes again.
    async fn publish(&self, order: Order) -> Result<(), String> {
        let message_id = format!("mcp/{}/{}", order.job, order.id);
        let until = Instant::now() + PATIENCE;
        loop {
            let json = order.json.clone();
            let sent = (self.nats)
                .publish_task(&order.job, None, json, Some(&message_id))
                .await;
            match sent {
                Ok(_) => return Ok(()),
                Err(error) if error.is_passing() && Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(error) => {
                    return Err(format!(
                        "NATS did not take {}/{}: {error}; those before it are queued, and the same call may be repeated with the same ids",
                        order.job, order.id
                    ));
                }
            }
        }
    }

    async fn views(&self, job: &JobName) -> Result<Vec<TaskView>, String> {
        let key = self
            .nats
            .job(job)
            .await
            .map_err(|error| error.to_string())?;
        let known = Known::all(&self.nats, job).await;
        let known = known.map_err(|error| error.to_string())?;
        let views = known.views(job, key.state());
        if views.is_empty() {
            return Err(format!("there is no job `{job}`, or it has no tasks"));
        }
        Ok(views)
    }

    async fn list(&self, arguments_: JsonObject) -> Result<String, String> {
        let Lists { job, status, after } = arguments(arguments_)?;
        let mut views = self.views(&job).await?;
        views.retain(|view| status.as_ref().is_none_or(|status| status == view.status));
        let all = views.len();
        let shown: Vec<_> = views.into_iter().skip(after).take(LISTED_MAX).collect();
        Ok(json!({"tasks": shown, "in_all": all}).to_string())
    }

    async fn read_result(&self, arguments_: JsonObject) -> Result<String, String> {
        let Reads { job, task } = arguments(arguments_)?;
        let last = self.nats.last_record(&job, &task).await;
        let Some((_, last)) = last.map_err(|error| error.to_string())? else {
            let views = self.views(&job).await?;
            let view = views.into_iter().find(|view| view.task == task);
            let view =
                view.ok_or_else(|| format!("there is no task `{task}` in the job `{job}`"))?;
            return Ok(json!({"status": view.status}).to_string());
        };
        let output = show::output(&self.nats, &last).await;
        let mut output = output
            .map_err(|error| error.to_string())?
            .unwrap_or_default();
        let text = output.to_string();
        if text.len() > OUTPUT_BYTES_MAX {
            output = Value::String(format!(
                "{}… (of {} bytes; `airx show {job} {task} -o json` has all)",
                text.chars().take(OUTPUT_BYTES_MAX / 4).collect::<String>(),
                text.len()
            ));
        }
        Ok(json!({
            "status": last.status.as_str(),
            "attempt": last.attempt,
            "output": output,
            "exit": last.exit,
            "error": last.error,
            "printed_last": last.tail,
            "waits": last.waits,
        })
        .to_string())
    }
}
