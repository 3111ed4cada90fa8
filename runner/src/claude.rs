//! Work for an agent: runs the Claude Code CLI, follows what it says, and tells what became of it.
//!
//! Start at [`run`]. `command` is the command line and the environment, `prompt` what the agent is told, `secret` how the
//! key reaches the CLI and nothing else, `transcript` follows the output (`seen` what it tells, `render` what a person
//! reads of it), `outcome` says what the end means (`told` when a limit is lifted), `saved` is what a further attempt goes
//! on from. Nothing here writes records.

mod command;
mod keep;
mod outcome;
mod prompt;
mod render;
mod saved;
mod secret;
mod seen;
mod session;
pub(crate) mod space;
mod stage;
mod told;
mod transcript;

use std::cell::Cell;
use std::time::Duration;

use air_protocol::agent::{AgentRun, Failure};
use air_protocol::claude::Claude;
use air_protocol::fate::Outcome;
use air_protocol::record::{Status, error_text};
use air_protocol::task::Task;
use air_protocol::time::Time;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::clock;
use crate::execute::workdir::Workdir;
use crate::execute::{End, Ended, Stop, execute};
use crate::files;
use crate::hold::Hold;
use crate::judge::{Report, asked, judge};
use crate::key;
use crate::logs::{self, Log};
use crate::record::Attempt;
use crate::workspace::Space;
use outcome::{Facts, Verdict};
use stage::{Stage, Trouble};
use transcript::{Told, Transcript};

pub(crate) use session::forget;

/// A limit that tells no time is tried again after this many times the task's `retry.backoff`, then twice that.
const LIMIT_BACKOFF: u32 = 5;
/// Bytes of the CLI's standard error that an error quotes.
const STDERR_BYTES: usize = 1000;

/// Runs the agent of `task` to its end; none where the attempt is not ours to settle.
pub(crate) async fn run(
    attempt: &Attempt<'_>,
    task: &Task,
    claude: &Claude,
    workdir: &Workdir,
) -> Option<Report> {
    let hold = attempt.hold;
    let stage = match hold
        .unless_lost(Stage::set(attempt, task, claude, workdir))
        .await?
    {
        Ok(stage) => stage,
        Err(trouble) => return unstaged(hold, trouble, workdir),
    };
    let started = clock::now();
    let (ended, told, early) = follow(attempt, &stage).await?;
    let now = clock::now();
    let mut report = match early.or_else(|| own_end(attempt, claude, &stage, &ended, &told, now)) {
        Some(verdict) => {
            let is_early = !matches!(ended.end, End::Exited(_));
            let exceeded = ended.memory_exceeded;
            report_of(verdict, ended, &told, started, is_early).of_memory(exceeded)
        }
        None => {
            let why = hold.brake.why();
            judge(ended, why, workdir, started, now)?
        }
    };
    report.cost = Some(told.seen.cost()).filter(|cost| !cost.is_nothing());
    report.tail = told.tail.clone();
    let mut agent = AgentRun {
        session: Some(stage.begin.session().to_owned()),
        model: told.seen.model.clone(),
        key: Some(stage.key.id()),
        failure: report.agent.take().and_then(|agent| agent.failure),
        ..AgentRun::default()
    };
    if report.started.is_none() {
        agent.failure = Some(Failure::Cli);
        agent.session = None;
    }
    if let Some(result) = &told.seen.result {
        agent.denied.clone_from(&result.denied);
    }
    if report.outcome == Outcome::Succeeded {
        report = with_output(report, claude, &told, workdir);
        report = asked(report, workdir, attempt.found.replies());
    }
    if let Some(space) = &stage.space {
        report = hold
            .unless_lost(with_work(hold, report, &mut agent, space, &stage, workdir))
            .await?;
    }
    if let (Some(Failure::RateLimit), Outcome::Later(Some(until))) = (agent.failure, report.outcome)
    {
        hold.unless_lost(key::tell(&hold.nats, &stage.key.id(), until, now))
            .await?;
    }
    agent.transcript = keep::transcript(hold, &stage, &told).await?;
    agent.saved = session::save_at_end(hold, &stage, &report).await?;
    report.agent = Some(agent);
    Some(redacted(report, &stage))
}

/// The report of an attempt whose CLI was not started; none where the attempt is not ours to settle.
fn unstaged(hold: &Hold, trouble: Trouble, workdir: &Workdir) -> Option<Report> {
    if let why @ Some(_) = hold.brake.why() {
        let ended = Ended::without_a_run(End::Stopped(Stop::Cancel));
        return judge(ended, why, workdir, clock::now(), clock::now());
    }
    let outcome = trouble.outcome;
    let mut report = Report::new(outcome).instead(outcome, &trouble.text);
    report.agent = Some(AgentRun {
        failure: Some(trouble.failure),
        ..AgentRun::default()
    });
    Some(report)
}

/// What an exit by itself means; none where the CLI was ended, or never ran.
fn own_end(
    attempt: &Attempt<'_>,
    claude: &Claude,
    stage: &Stage,
    ended: &Ended,
    told: &Told,
    now: Time,
) -> Option<Verdict> {
    let End::Exited(code) = ended.end else {
        return None;
    };
    let stderr = stage.stderr(STDERR_BYTES);
    Some(outcome::verdict(
        &told.seen,
        Facts {
            code,
            stderr: &stderr,
            has_schema: claude.schema.is_some(),
            accepts_denials: claude.accept_denials,
            now,
            next_try: now.after(next_try(attempt)),
        },
    ))
}

fn report_of(verdict: Verdict, ended: Ended, told: &Told, started: Time, is_early: bool) -> Report {
    let code = match ended.end {
        End::Exited(code) if !is_early => Some(code),
        _ => None,
    };
    Report {
        error: verdict.error.as_deref().map(error_text),
        exit: code,
        started: Some(started),
        cpu_ms: Some(ended.cpu_ms),
        max_rss_kb: Some(ended.max_rss_kb),
        tail: told.tail.clone(),
        agent: Some(AgentRun {
            failure: verdict.failure,
            ..AgentRun::default()
        }),
        ..Report::new(verdict.outcome)
    }
}

/// The CLI from its start to its last process, its log stored; with the verdict where it was ended early for a reason of
/// its own. None when the lease is lost.
async fn follow(attempt: &Attempt<'_>, stage: &Stage) -> Option<(Ended, Told, Option<Verdict>)> {
    let hold = attempt.hold;
    let target = &hold.target;
    let writer = (hold.nats).log_writer(&hold.job, &target.task, target.attempt, hold.runner);
    let mut log = Log::new(writer);
    let (chunks, mut output) = mpsc::channel::<Vec<u8>>(logs::WAITING_MAX);
    let (readable, shown) = mpsc::channel(logs::WAITING_MAX * 4);
    let (turns, seen) = watch::channel(0_u64);
    let stop = watch::Sender::new(None);
    let early = Cell::new(None);
    let mut transcript = Transcript::new(&stage.key, &stage.places.transcript, readable);
    let follow = async {
        while let Some(chunk) = output.recv().await {
            transcript.take(&chunk, |seen| {
                turns.send_modify(|turns| *turns += 1);
                let verdict = if seen.unconnected.is_empty() {
                    outcome::limited(seen, clock::now())
                } else {
                    Some(outcome::unconnected(seen))
                };
                if verdict.is_some() {
                    early.set(verdict);
                    stop.send_replace(Some(Stop::Cancel));
                }
            });
        }
        drop(turns);
        transcript.finish()
    };
    let work = async {
        tokio::join!(
            execute(stage.program.clone(), chunks, stop.subscribe()),
            follow,
            hold.unless_lost(log.carry(shown)),
            hold.unless_lost(session::save_as_it_grows(hold, stage, seen)),
        )
    };
    let (ended, told, _, _) = tokio::select! {
        done = work => done,
        never = forward(hold.brake.stop(), &stop) => match never {},
    };
    hold.unless_lost(log.finish(told.unshown)).await?;
    // What ends the attempt from outside counts more.
    let early = early.take().filter(|_| hold.brake.why().is_none());
    Some((ended, told, early))
}

/// Hands on every reason to stop, for ever.
async fn forward(
    mut from: watch::Receiver<Option<Stop>>,
    to: &watch::Sender<Option<Stop>>,
) -> std::convert::Infallible {
    loop {
        let reason = *from.borrow_and_update();
        if reason.is_some() {
            to.send_replace(reason);
        }
        if from.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The delay after a limit that told no time: longer each time in a row.
fn next_try(attempt: &Attempt<'_>) -> Duration {
    let found = attempt.found;
    let Ok(task) = &found.queued.task else {
        return Duration::ZERO;
    };
    let retry = found.spec.retry_of(task);
    let least = retry.delay(1, 0).saturating_mul(LIMIT_BACKOFF);
    let most = retry.delay(u32::MAX, 0);
    let before = found.last.as_ref().and_then(|(_, last)| {
        let failure = last.agent.as_ref().and_then(|agent| agent.failure);
        let is_limit = matches!(failure, Some(Failure::RateLimit | Failure::Overload));
        let waited = last.retry_at?.since(last.ended);
        (is_limit && last.status == Status::Retrying).then_some(waited)
    });
    let delay = before
        .map_or(least, |before| (before * 2).max(least))
        .min(most);
    // Those that were refused together do not come back together.
    delay + delay / 4 * u32::from(attempt.hold.runner.as_bytes()[15]) / 255
}

/// The output: the result in the schema, else what the agent wrote into `AIR_OUTPUT`, else what it said last.
fn with_output(report: Report, claude: &Claude, told: &Told, workdir: &Workdir) -> Report {
    let result = told.seen.result.as_ref();
    let structured = result.and_then(|result| result.structured.clone());
    let said = result.map(|result| result.text.clone()).unwrap_or_default();
    match (structured, files::output(&workdir.output())) {
        (Some(value), _) if claude.schema.is_some() => Report {
            output: Some(value),
            ..report
        },
        (_, Ok(Some(value))) => Report {
            output: Some(value),
            ..report
        },
        (_, Ok(None)) => Report {
            output: Some(json!({ "summary": said })),
            ..report
        },
        (_, Err(text)) => report.instead(Outcome::FailedForGood, &text),
    }
}

/// What the agent said, where that is all there is.
fn told_alone(output: &Value) -> Option<&str> {
    let all = output.as_object().filter(|all| all.len() == 1)?;
    all.get("summary")?.as_str()
}

/// Brings the agent's work to the repository, and tells of it in the output.
async fn with_work(
    hold: &Hold,
    report: Report,
    agent: &mut AgentRun,
    space: &Space,
    stage: &Stage,
    workdir: &Workdir,
) -> Report {
    let report = match report.outcome {
        Outcome::Succeeded => {
            let result = report.output.clone().unwrap_or_default();
            let said = told_alone(&result).unwrap_or_default().to_owned();
            match space::finish(space, &stage.key.redact(said.clone())).await {
                Ok(summary) => {
                    agent.branch = Some(summary.branch.clone());
                    agent.commit = Some(summary.commit.clone());
                    let result = told_alone(&result).map_or(result.clone(), |said| json!(said));
                    let output = Some(summary.with_result(result));
                    return Report { output, ..report };
                }
                Err(trouble) => {
                    agent.failure = Some(trouble.failure);
                    report.instead(trouble.outcome, &trouble.text)
                }
            }
        }
        _ => report,
    };
    if matches!(report.outcome, Outcome::Failed | Outcome::FailedForGood)
        && let Some(commit) = space::leave(space, &report).await
    {
        agent.branch = Some(space.branch().to_owned());
        agent.commit = Some(commit);
    }
    space::save(hold, space, workdir.path()).await;
    report
}

/// The same report without the key.
fn redacted(report: Report, stage: &Stage) -> Report {
    let key = &stage.key;
    Report {
        error: report.error.map(|text| key.redact(text)),
        tail: report.tail.map(|text| key.redact(text)),
        output: report.output.map(|value: Value| key.redact_value(value)),
        ..report
    }
}
