//! `airx events`: what happened, one event a line.

use std::time::Duration;

use air_nats::direct::Stored;
use air_protocol::event::Event;
use air_protocol::names::JobName;
use air_protocol::time::{Span, Time};
use serde_json::Value;

use crate::app::{App, now};
use crate::{Exit, Failure};

/// Options of `airx events`.
#[derive(Debug, clap::Args)]
#[command(after_help = "With -o json each line is one CloudEvent.")]
pub struct Args {
    /// Only events of this job
    pub job: Option<JobName>,
    /// Go on with new events, until Ctrl-C; without --since, new ones only
    #[arg(short, long)]
    pub follow: bool,
    /// Only events of this last span of time, such as 10m
    #[arg(long, value_name = "TIME")]
    pub since: Option<Span>,
}

/// Events that one reply brings.
const PAGE: usize = 256;
/// Time after which one looks even if nothing was heard.
const POLL: Duration = Duration::from_secs(2);

/// Shows events.
///
/// # Errors
/// NATS does not answer, or nobody reads.
pub async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let nats = app.nats().await?;
    let job = args.job.as_ref();
    let oldest = args.since.map(|span| before(now(), span));
    let mut from = if args.follow && args.since.is_none() {
        nats.events_end().await? + 1
    } else {
        1
    };
    let mut hints = nats.event_hints(job).await?;
    loop {
        loop {
            let events = nats.events(job, from, PAGE).await?;
            let Some(last) = events.last() else { break };
            from = last.seq + 1;
            for event in events
                .iter()
                .filter(|event| oldest.is_none_or(|oldest| event.time >= oldest))
            {
                show(app, event)?;
            }
        }
        if !args.follow {
            return Ok(Exit::Done);
        }
        drop(tokio::time::timeout(POLL, hints.next()).await);
    }
}

fn before(time: Time, span: Span) -> Time {
    let millis = u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX);
    Time::from_millis(time.as_millis().saturating_sub(millis))
}

fn show(app: &App, stored: &Stored) -> Result<(), Failure> {
    let Ok(event) = serde_json::from_slice::<Event>(&stored.payload) else {
        let text = String::from_utf8_lossy(&stored.payload);
        return app
            .console
            .item(&Value::from(text.clone()), || app.console.line(&text));
    };
    app.console
        .item(&event, || app.console.line(line(app, &event)))
}

fn line(app: &App, event: &Event) -> String {
    let kind = event.kind.strip_prefix("air.").unwrap_or(&event.kind);
    let data = &event.data;
    let mut words = vec![
        event.time.to_string(),
        app.console.status(&format!("{kind:<12}")),
        event
            .subject
            .clone()
            .or_else(|| data.manager.clone())
            .unwrap_or_else(|| "-".to_owned()),
    ];
    words.extend(data.attempt.map(|attempt| format!("attempt {attempt}")));
    words.extend(data.status.clone());
    words.extend(data.reason.as_deref().map(crate::table::one_line));
    words.join("  ")
}
