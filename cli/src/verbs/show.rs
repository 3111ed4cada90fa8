//! `airx show`: one task with all its attempts, its result and what it printed last.

use std::fmt::Write as _;

use air_nats::Nats;
use air_nats::records::At;
use air_protocol::agent::AgentRun;
use air_protocol::approval::{Reply, Waits};
use air_protocol::names::{JobName, TaskId};
use air_protocol::record::Record;
use air_protocol::task::Task;
use air_protocol::time::Time;
use serde::Serialize;
use serde_json::Value;

use crate::app::{App, now, short};
use crate::console::Colour;
use crate::table::Table;
use crate::task_view::{Known, TaskView};
use crate::verbs::tasks::{answers, cut, detail};
use crate::{Exit, Failure, yaml};

/// Options of `airx show`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The job
    pub job: JobName,
    /// The task
    pub task: TaskId,
}

/// All that is known of a task.
#[derive(Debug, Serialize)]
struct Shown {
    job: JobName,
    #[serde(flatten)]
    view: TaskView,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<Task>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Value>,
    attempts: Vec<Record>,
}

/// Shows a task.
///
/// # Errors
/// There is no such task, or NATS does not answer.
pub async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let nats = app.nats().await?;
    let shown = find(&nats, &args.job, &args.task).await?;
    app.console
        .data(&shown, || app.console.raw(text(app, &shown).as_bytes()))?;
    Ok(Exit::Done)
}

async fn find(nats: &Nats, job: &JobName, task: &TaskId) -> Result<Shown, Failure> {
    let key = nats.job(job).await?;
    let records = nats.task_records(job, task).await?;
    let over = records
        .last()
        .is_some_and(|(_, last)| last.status.is_final());
    let known = if over {
        Known::default()
    } else {
        Known::waiting(nats, job, usize::MAX).await?
    };
    let waiting = known
        .views(job, key.state())
        .into_iter()
        .find(|view| view.task == *task);
    let view = match (waiting, records.last()) {
        (Some(view), _) => view,
        (None, Some(last)) => view_of(job, last),
        (None, None) => {
            return Err(Failure::NoTask {
                job: job.clone(),
                task: task.clone(),
            });
        }
    };
    let last = records.last().map(|(_, record)| record);
    let messages = known.queued.iter().chain(&known.scheduled);
    let message = messages
        .filter(|queued| queued.id == *task)
        .find_map(|queued| queued.task.as_ref().ok());
    let spec = message.cloned().or_else(|| last?.spec.clone());
    let output = match last {
        Some(last) => output(nats, last).await?,
        None => None,
    };
    let attempts = records.into_iter().map(|(_, record)| record).collect();
    Ok(Shown {
        job: job.clone(),
        view,
        spec,
        output,
        attempts,
    })
}

fn view_of(job: &JobName, last: &At) -> TaskView {
    let mut known = Known::default();
    known.lasts.insert(last.1.task.clone(), last.clone());
    let mut views = known.views(job, None);
    views.swap_remove(0)
}

/// The result of a task, also where it lies in a blob.
///
/// # Errors
/// NATS does not answer as it should.
pub async fn output(nats: &Nats, record: &Record) -> Result<Option<Value>, Failure> {
    let Some(blob) = &record.output_blob else {
        return Ok(record.output.clone());
    };
    let bytes = nats.get_blob(blob).await?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

fn text(app: &App, shown: &Shown) -> String {
    let view = &shown.view;
    let mut text = String::new();
    let mut say = |name: &str, value: &str| {
        if !value.is_empty() {
            let name = app.console.paint(Colour::Bold, &format!("{name:<9}"));
            let _ = writeln!(text, "{name} {value}");
        }
    };
    say("task", &format!("{}/{}", shown.job, view.task));
    say("status", &app.console.status(view.status));
    say("attempt", &view.attempt.to_string());
    say("detail", &detail(view));
    let last = shown.attempts.last();
    if let Some(last) = last {
        let error = last.error.as_deref().unwrap_or_default();
        say("error", if detail(view) == error { "" } else { error });
        say("took", &timings(last));
        if let Some(cost) = &last.cost {
            say("cost", &cost.to_string());
        }
        for (name, value) in last.agent.iter().flat_map(agent) {
            say(name, &value);
        }
        if let Some(waits) = &last.waits {
            let asks = matches!(waits, Waits::Answer { .. });
            say(if asks { "asks" } else { "approve?" }, waits.text());
            say("reply", &answers(&shown.job, &view.task, waits));
        }
        for reply in &last.replies {
            say("replied", &said(reply));
        }
        let host = last.host.as_deref().unwrap_or_default();
        say("host", host);
    }
    if let Some(spec) = &shown.spec {
        block(app, &mut text, "spec", &yaml::write(&value(spec)));
    }
    if !shown.attempts.is_empty() {
        let lines = attempts(&shown.attempts).lines(|_, cell| cell.to_owned());
        block(app, &mut text, "attempts", &lines.join("\n"));
    }
    if let Some(output) = &shown.output {
        let pretty = serde_json::to_string_pretty(output).unwrap_or_default();
        block(app, &mut text, "output", &pretty);
    }
    if let Some(tail) = last.and_then(|last| last.tail.as_ref()) {
        block(app, &mut text, "printed last", tail);
    }
    text
}

/// A reply on one line: what was asked, and what a person said.
fn said(reply: &Reply) -> String {
    let age = short(now().since(reply.at));
    match &reply.question {
        Some(question) => format!("{} — {} ({age} ago)", cut(question, 80), reply.text),
        None if reply.text.is_empty() => format!("approved ({age} ago)"),
        None => format!("approved: {} ({age} ago)", reply.text),
    }
}

/// What an agent's attempt was, and what it left.
fn agent(agent: &AgentRun) -> Vec<(&'static str, String)> {
    let failure = agent.failure.and_then(|failure| {
        let word = serde_json::to_value(failure).ok()?;
        word.as_str().map(str::to_owned)
    });
    let blobs = [&agent.transcript, &agent.saved];
    let blobs: Vec<_> = blobs.into_iter().flatten().cloned().collect();
    [
        ("failure", failure),
        ("denied", Some(agent.denied.join(", "))),
        ("model", agent.model.clone()),
        ("session", agent.session.clone()),
        ("branch", agent.branch.clone()),
        ("commit", agent.commit.clone()),
        ("blobs", Some(blobs.join(", "))),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

fn value(task: &Task) -> Value {
    serde_json::to_value(task).unwrap_or_default()
}

fn block(app: &App, text: &mut String, name: &str, body: &str) {
    let _ = writeln!(text, "\n{}", app.console.paint(Colour::Bold, name));
    for line in body.lines() {
        let _ = writeln!(text, "  {line}");
    }
}

fn timings(record: &Record) -> String {
    let between = |from: Option<Time>, to: Option<Time>| Some(short(to?.since(from?)));
    let mut parts = Vec::new();
    let mut part =
        |name: &str, span: Option<String>| parts.extend(span.map(|span| format!("{span} {name}")));
    part(
        "waiting",
        between(record.queued, record.claimed.or(Some(record.ended))),
    );
    part("starting", between(record.claimed, record.started));
    part("running", between(record.started, Some(record.ended)));
    part(
        "of processor",
        record
            .cpu_ms
            .map(|ms| short(std::time::Duration::from_millis(ms))),
    );
    part(
        "of memory",
        record.max_rss_kb.map(|kb| format!("{} MiB", kb / 1024)),
    );
    parts.join(", ")
}

fn attempts(records: &[Record]) -> Table {
    let mut table = Table::new(&[
        "ATTEMPT", "STATUS", "ENDED", "RAN", "EXIT", "SUBTASKS", "ERROR",
    ]);
    let now = now();
    for record in records {
        let exit = match (record.exit, record.signal) {
            (Some(exit), _) => exit.to_string(),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => String::new(),
        };
        table.row([
            record.attempt.to_string(),
            record.status.as_str().to_owned(),
            format!("{} ago", short(now.since(record.ended))),
            record
                .started
                .map(|started| short(record.ended.since(started)))
                .unwrap_or_default(),
            exit,
            record.subtasks.to_string(),
            record.error.clone().unwrap_or_default(),
        ]);
    }
    table
}
