//! What the CLI's lines tell: session, model, servers, refusals, and the result. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use air_protocol::cost::{Cost, Usd};
use air_protocol::time::Time;
use serde_json::Value;

use super::told;

/// All that is known so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Id of the session.
    pub(super) session: Option<String>,
    /// Model that answers.
    pub(super) model: Option<String>,
    /// MCP servers that did not connect, and their status.
    pub(super) unconnected: Vec<(String, String)>,
    /// The service refused, and the CLI tries again: status and delay of the last time.
    pub(super) retry: Option<(Option<u64>, Duration)>,
    /// When the limit is lifted, as an event of the CLI told.
    pub(super) lifted: Option<Time>,
    /// Whether the model has answered.
    pub(super) answered: bool,
    /// What each message said it took, where no result says what all took.
    pub(super) messages: BTreeMap<String, Cost>,
    /// The result.
    pub(super) result: Option<Ended>,
}

/// The last line: how the CLI says that it ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Ended {
    /// Its word for how it ended, `success` for many failures too.
    pub(super) subtype: String,
    /// Whether it failed.
    pub(super) is_error: bool,
    /// Status of the service's last refusal.
    pub(super) api_status: Option<u64>,
    /// The last text of the model, or what went wrong.
    pub(super) text: String,
    /// The result in the wanted schema.
    pub(super) structured: Option<Value>,
    /// Tools that were denied.
    pub(super) denied: Vec<String>,
    /// What it took.
    pub(super) cost: Cost,
}

impl Seen {
    /// Takes one line.
    pub(super) fn take(&mut self, line: &Value) {
        match (text(line, "type"), text(line, "subtype")) {
            ("system", "init") => self.init(line),
            ("system", "api_retry") => {
                let delay = line["retry_delay_ms"].as_f64().unwrap_or(0.0);
                let delay = Duration::try_from_secs_f64(delay / 1000.0).unwrap_or_default();
                self.retry = Some((line["error_status"].as_u64(), delay));
            }
            ("rate_limit_event", _) => {
                let info = &line["rate_limit_info"];
                if text(info, "status") == "rejected" {
                    self.lifted = info["resetsAt"].as_u64().and_then(told::of_epoch);
                }
            }
            ("assistant", _) => self.message(&line["message"]),
            ("result", _) => self.result = Some(ended(line)),
            _ => {}
        }
    }

    fn init(&mut self, line: &Value) {
        self.session = line["session_id"].as_str().map(str::to_owned);
        self.model = line["model"].as_str().map(str::to_owned);
        let servers = line["mcp_servers"].as_array().into_iter().flatten();
        let servers = servers.map(|server| (text(server, "name"), text(server, "status")));
        self.unconnected = servers
            .filter(|(_, status)| *status != "connected")
            .map(|(name, status)| (name.to_owned(), status.to_owned()))
            .collect();
    }

    fn message(&mut self, message: &Value) {
        // What the CLI itself says in the model's place.
        if text(message, "model") == "<synthetic>" {
            return;
        }
        self.answered = true;
        let cost = Cost {
            turns: 1,
            ..tokens(&message["usage"])
        };
        self.messages.insert(text(message, "id").to_owned(), cost);
    }

    /// What it took: as the result says, else what the messages said, which is less than it was.
    pub(super) fn cost(&self) -> Cost {
        match &self.result {
            Some(ended) => ended.cost,
            None => self
                .messages
                .values()
                .fold(Cost::default(), |sum, cost| sum.plus(*cost)),
        }
    }
}

fn ended(line: &Value) -> Ended {
    let mut said = vec![text(line, "result").to_owned()];
    let errors = line["errors"].as_array().into_iter().flatten();
    said.extend(errors.filter_map(|error| error.as_str().map(str::to_owned)));
    said.retain(|text| !text.is_empty());
    let denials = line["permission_denials"].as_array().into_iter().flatten();
    let mut denied: Vec<_> = denials
        .map(|one| text(one, "tool_name").to_owned())
        .collect();
    denied.sort();
    denied.dedup();
    let models = line["modelUsage"].as_object().into_iter().flatten();
    let of_models = models.map(|(_, usage)| Cost {
        input_tokens: number(usage, "inputTokens"),
        output_tokens: number(usage, "outputTokens"),
        cache_read_tokens: number(usage, "cacheReadInputTokens"),
        cache_write_tokens: number(usage, "cacheCreationInputTokens"),
        ..Cost::default()
    });
    let of_models = of_models.fold(Cost::default(), Cost::plus);
    let counted = if of_models.is_nothing() {
        tokens(&line["usage"])
    } else {
        of_models
    };
    let usd = Usd::try_from(line["total_cost_usd"].as_f64().unwrap_or(0.0));
    Ended {
        subtype: text(line, "subtype").to_owned(),
        is_error: line["is_error"].as_bool().unwrap_or(true),
        api_status: line["api_error_status"].as_u64(),
        text: said.join("; "),
        structured: line
            .get("structured_output")
            .filter(|value| !value.is_null())
            .cloned(),
        denied,
        cost: Cost {
            usd: usd.unwrap_or_default(),
            turns: number(line, "num_turns"),
            ..counted
        },
    }
}

fn tokens(usage: &Value) -> Cost {
    Cost {
        input_tokens: number(usage, "input_tokens"),
        output_tokens: number(usage, "output_tokens"),
        cache_read_tokens: number(usage, "cache_read_input_tokens"),
        cache_write_tokens: number(usage, "cache_creation_input_tokens"),
        ..Cost::default()
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_result_counts_and_before_it_the_messages() {
        let mut seen = Seen::default();
        let servers =
            json!([{ "name": "air", "status": "connected" }, { "name": "b", "status": "failed" }]);
        seen.take(&json!({ "type": "system", "subtype": "init", "session_id": "s", "model": "m", "mcp_servers": servers }));
        assert_eq!(seen.unconnected, [("b".to_owned(), "failed".to_owned())]);
        let usage = json!({ "input_tokens": 5, "output_tokens": 1, "cache_read_input_tokens": 2 });
        let said =
            json!({ "type": "assistant", "message": { "id": "1", "model": "m", "usage": usage } });
        seen.take(&said);
        seen.take(&said);
        let synthetic = json!({ "type": "assistant", "message": { "id": "2", "model": "<synthetic>", "usage": usage } });
        seen.take(&synthetic);
        let cost = seen.cost();
        assert_eq!(
            (cost.input_tokens, cost.cache_read_tokens, cost.turns),
            (5, 2, 1)
        );
        seen.take(&json!({
            "type": "result", "subtype": "success", "is_error": false, "result": "done", "num_turns": 3,
            "total_cost_usd": 0.25, "usage": { "input_tokens": 1 },
            "modelUsage": { "m": { "inputTokens": 7, "outputTokens": 8 }, "n": { "inputTokens": 1 } },
            "permission_denials": [{ "tool_name": "Bash" }, { "tool_name": "Bash" }],
        }));
        let cost = seen.cost();
        assert_eq!(
            (cost.usd, cost.input_tokens, cost.output_tokens, cost.turns),
            (Usd::from_micros(250_000), 8, 8, 3)
        );
        let ended = seen.result.unwrap();
        assert_eq!(
            (ended.text.as_str(), ended.denied.as_slice()),
            ("done", &["Bash".to_owned()][..])
        );
    }

    #[test]
    fn what_is_of_another_form_is_no_trouble() {
        let mut seen = Seen::default();
        for line in [
            json!(null),
            json!([1]),
            json!({ "type": 1 }),
            json!({ "type": "assistant" }),
            json!({ "type": "system", "subtype": "api_retry", "retry_delay_ms": 1e300 }),
        ] {
            seen.take(&line);
        }
        seen.take(&json!({ "type": "result" }));
        assert!(seen.result.unwrap().is_error);
    }
}
