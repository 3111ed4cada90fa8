//! What the end of the CLI means: success, or which failure, and its remedy. Pure.
//!
//! The CLI's exit code and its word `success` tell little: a refusal by the service is a `success` with an error flag,
//! and a tool that was denied is no error at all.

use std::time::Duration;

use air_protocol::agent::Failure;
use air_protocol::fate::Outcome;
use air_protocol::time::Time;

use super::seen::{Ended, Seen};
use super::told;
use crate::judge::EXIT_LATER;

/// A delay of the CLI's that is longer was told by the service; its own are shorter.
pub(super) const DELAY_TOLD_MIN: Duration = Duration::from_secs(5);

/// What is known beside the CLI's lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    /// The exit code.
    pub(super) code: i32,
    /// The end of its standard error, without the key.
    pub(super) stderr: &'a str,
    /// Whether a result of a schema is wanted.
    pub(super) has_schema: bool,
    /// Whether denied tools are no failure.
    pub(super) accepts_denials: bool,
    /// The time.
    pub(super) now: Time,
    /// When to try again where a limit tells no time.
    pub(super) next_try: Time,
}

/// What it means.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    pub(super) failure: Option<Failure>,
    /// What went wrong, and its remedy.
    pub(super) error: Option<String>,
}

/// The verdict on a CLI that has left by itself.
pub(super) fn verdict(seen: &Seen, facts: Facts<'_>) -> Verdict {
    if !seen.unconnected.is_empty() {
        return unconnected(seen);
    }
    let Some(ended) = &seen.result else {
        return without_result(facts);
    };
    if !ended.is_error && facts.code == 0 {
        return success(ended, facts);
    }
    if facts.code == EXIT_LATER {
        return later(seen, ended, Failure::RateLimit, facts);
    }
    let (failure, outcome, remedy) = match kind(ended) {
        failure @ (Failure::RateLimit | Failure::Overload) if is_limit(failure, ended) => {
            return later(seen, ended, failure, facts);
        }
        failure => {
            let (outcome, remedy) = remedy(failure);
            (failure, outcome, remedy)
        }
    };
    let said = said(ended, facts);
    Verdict {
        outcome,
        failure: Some(failure),
        error: Some(format!("{said}; {remedy}")),
    }
}

/// An agent whose servers are not all there is not let work.
pub(super) fn unconnected(seen: &Seen) -> Verdict {
    let servers = seen.unconnected.iter();
    let servers: Vec<_> = servers
        .map(|(name, status)| format!("`{name}` ({status})"))
        .collect();
    failed(
        Outcome::Failed,
        Failure::Mcp,
        format!(
            "MCP servers did not connect: {}; see that their commands work on this host, in the task's environment",
            servers.join(", ")
        ),
    )
}

/// The limit that the CLI was told of while nothing was spent yet, so that it need not wait.
pub(super) fn limited(seen: &Seen, now: Time) -> Option<Verdict> {
    let (status, delay) = seen.retry?;
    let failure = match status? {
        429 => Failure::RateLimit,
        529 => Failure::Overload,
        _ => return None,
    };
    (delay >= DELAY_TOLD_MIN && !seen.answered).then(|| Verdict {
        outcome: Outcome::Later(Some(now.after(delay))),
        failure: Some(failure),
        error: Some(
            "the service's limit is reached; the task goes on when the service says".to_owned(),
        ),
    })
}

fn success(ended: &Ended, facts: Facts<'_>) -> Verdict {
    if !ended.denied.is_empty() && !facts.accepts_denials {
        let text = format!(
            "tools were denied: {}; allow them in `allowed_tools`, or give `accept_denials: true` if the result is good without",
            ended.denied.join(", ")
        );
        return failed(Outcome::FailedForGood, Failure::Permission, text);
    }
    if facts.has_schema && ended.structured.is_none() {
        let text = "the agent gave no result in the schema; say in the prompt what the result is";
        return failed(Outcome::Failed, Failure::Schema, text.to_owned());
    }
    Verdict {
        outcome: Outcome::Succeeded,
        failure: None,
        error: None,
    }
}

fn without_result(facts: Facts<'_>) -> Verdict {
    let said = facts.stderr.trim();
    if facts.code == EXIT_LATER {
        let told = told::time_in(said, facts.now);
        return Verdict {
            outcome: Outcome::Later(Some(told.unwrap_or(facts.next_try))),
            failure: Some(Failure::RateLimit),
            error: Some("the agent asked to be run later (exit code 75)".to_owned()),
        };
    }
    let is_session = ["No conversation found", "is already in use"];
    if is_session.iter().any(|part| said.contains(part)) {
        let text = format!(
            "the session could not be gone on with: {said}; the next attempt begins a new one"
        );
        return failed(Outcome::Failed, Failure::Session, text);
    }
    let said = if said.is_empty() {
        "it printed nothing"
    } else {
        said
    };
    let text = format!(
        "the Claude Code CLI gave no result (exit code {}): {said}; try it by hand on this host",
        facts.code
    );
    failed(Outcome::Failed, Failure::Cli, text)
}

/// Which failure a result tells of.
fn kind(ended: &Ended) -> Failure {
    match ended.subtype.as_str() {
        "error_max_turns" => return Failure::Turns,
        "error_max_budget_usd" => return Failure::Budget,
        "error_max_structured_output_retries" => return Failure::Schema,
        _ => {}
    }
    let text = ended.text.to_ascii_lowercase();
    let says = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    match ended.api_status {
        Some(401 | 403) => Failure::Login,
        Some(404) => Failure::Model,
        Some(429) => Failure::RateLimit,
        Some(500..) => Failure::Overload,
        Some(408) => Failure::Network,
        _ if says(&[
            "credit balance",
            "not logged in",
            "invalid api key",
            "authenticate",
        ]) =>
        {
            Failure::Login
        }
        _ if says(&["overloaded"]) => Failure::Overload,
        _ if says(&[
            "limit reached",
            "hit your limit",
            "usage limit",
            "rate limit",
            "resets at",
        ]) =>
        {
            Failure::RateLimit
        }
        Some(400..) => Failure::Request,
        _ if says(&[
            "unable to connect",
            "timed out",
            "connection",
            "stream ended",
            "network",
        ]) =>
        {
            Failure::Network
        }
        _ => Failure::Cli,
    }
}

/// Whether the service says that it is too much now, rather than that it is broken.
fn is_limit(failure: Failure, ended: &Ended) -> bool {
    failure == Failure::RateLimit || matches!(ended.api_status, None | Some(529))
}

fn later(seen: &Seen, ended: &Ended, failure: Failure, facts: Facts<'_>) -> Verdict {
    let now = facts.now;
    let delay = seen.retry.map(|(_, delay)| delay);
    let delay = delay.filter(|delay| *delay >= DELAY_TOLD_MIN);
    let told = seen
        .lifted
        .or_else(|| told::time_in(&ended.text, now))
        .or_else(|| delay.map(|delay| now.after(delay)));
    let said = said(ended, facts);
    let remedy = if told.is_some() {
        "the task goes on at the time told"
    } else {
        "no time was told; the task goes on after a delay that grows"
    };
    Verdict {
        outcome: Outcome::Later(Some(told.unwrap_or(facts.next_try))),
        failure: Some(failure),
        error: Some(format!("{said}; {remedy}")),
    }
}

fn said(ended: &Ended, facts: Facts<'_>) -> String {
    match (ended.text.is_empty(), facts.stderr.trim()) {
        (false, _) => ended.text.clone(),
        (true, "") => format!("the agent ended with `{}`", ended.subtype),
        (true, stderr) => stderr.to_owned(),
    }
}

/// Whether another try may help, and what a person can do.
fn remedy(failure: Failure) -> (Outcome, &'static str) {
    let for_good = Outcome::FailedForGood;
    match failure {
        Failure::Turns => (
            for_good,
            "give `max_turns` more; `airx retry` goes on in the session",
        ),
        Failure::Budget => (
            for_good,
            "give `max_budget_usd` more; `airx retry` goes on in the session",
        ),
        Failure::Schema => (
            Outcome::Failed,
            "see that `schema` can be met, and say in the prompt what the result is",
        ),
        Failure::Permission => (for_good, "allow the tools in `allowed_tools`"),
        Failure::Login => (
            for_good,
            "see that the key in the manager's environment is valid and has credit",
        ),
        Failure::Model => (
            for_good,
            "name another `model`, or one that the key may use",
        ),
        Failure::Request => (for_good, "see what the service says about the request"),
        Failure::Overload => (
            Outcome::Failed,
            "the service has a fault; it is tried again",
        ),
        Failure::RateLimit => (Outcome::Failed, "the key's limit is reached"),
        Failure::Network => (
            Outcome::Failed,
            "see that this host reaches the service (ANTHROPIC_BASE_URL)",
        ),
        Failure::Mcp => (Outcome::Failed, "see that the MCP servers start"),
        Failure::Session => (Outcome::Failed, "the next attempt begins a new session"),
        Failure::Workspace => (Outcome::Failed, "see that the workspace can be made"),
        Failure::Cli => (Outcome::Failed, "see the transcript"),
    }
}

fn failed(outcome: Outcome, failure: Failure, error: String) -> Verdict {
    Verdict {
        outcome,
        failure: Some(failure),
        error: Some(error),
    }
}

#[cfg(test)]
mod tests;
