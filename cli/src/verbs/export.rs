//! `airx export`: all that is known of a job, for other programs.

mod csv;

use std::collections::BTreeMap;

use air_nats::Nats;
use air_nats::jobs::Key;
use air_protocol::job::JobState;
use air_protocol::names::{JobName, TaskId};
use air_protocol::record::Record;
use air_protocol::spec::Spec;
use air_protocol::time::Time;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use serde::Serialize;
use serde_json::Value;

use crate::app::{App, now};
use crate::console::Format;
use crate::task_view::{Known, TaskView};
use crate::verbs::show::output;
use crate::{Exit, Failure};

/// Options of `airx export`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "JSON has state, spec, tasks and all their attempts; CSV has one line for each attempt, and one for each\ntask that waits for its first."
)]
pub struct Args {
    /// The job
    pub job: JobName,
    /// Format of data on stdout
    #[arg(short, long, value_name = "FORMAT", default_value = "json")]
    #[arg(value_parser = PossibleValuesParser::new(["json", "csv"]).try_map(|word| Format::parse(&word)))]
    pub output: Format,
}

/// All that is known of a job.
#[derive(Debug, Serialize)]
struct Export {
    job: JobName,
    exported: Time,
    state: Option<JobState>,
    spec: Option<Spec>,
    tasks: Vec<Task>,
}

#[derive(Debug, Serialize)]
struct Task {
    #[serde(flatten)]
    view: TaskView,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Value>,
    attempts: Vec<Record>,
}

/// Writes the job.
///
/// # Errors
/// There is no such job, or NATS does not answer.
pub async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let nats = app.nats().await?;
    let export = collect(&nats, &args.job).await?;
    match args.output {
        Format::Csv => app.console.raw(csv::text(&export).as_bytes())?,
        Format::Json => {
            let text = serde_json::to_string_pretty(&export).unwrap_or_default();
            app.console.line(text)?;
        }
        Format::Table | Format::Yaml => {
            return Err(Failure::Usage("export writes json or csv only".to_owned()));
        }
    }
    Ok(Exit::Done)
}

async fn collect(nats: &Nats, job: &JobName) -> Result<Export, Failure> {
    let key = nats.job(job).await?;
    let spec = nats.spec(job).await?.0.ok();
    let known = Known::all(nats, job).await?;
    let mut attempts: BTreeMap<TaskId, Vec<Record>> = BTreeMap::new();
    let mut after = 0;
    loop {
        let (records, more) = nats.records_after(job, after, 500).await?;
        let Some((last, _)) = records.last() else {
            break;
        };
        after = *last;
        for (_, record) in records {
            attempts
                .entry(record.task.clone())
                .or_default()
                .push(record);
        }
        if !more {
            break;
        }
    }
    let views = known.views(job, key.state());
    if views.is_empty() && matches!(key, Key::Absent | Key::Deleted(_)) {
        return Err(Failure::NoJob(job.clone()));
    }
    let mut tasks = Vec::with_capacity(views.len());
    for view in views {
        let attempts = attempts.remove(&view.task).unwrap_or_default();
        let output = match attempts.last() {
            Some(last) => output(nats, last).await?,
            None => None,
        };
        tasks.push(Task {
            view,
            output,
            attempts,
        });
    }
    Ok(Export {
        job: job.clone(),
        exported: now(),
        state: key.state().cloned(),
        spec,
        tasks,
    })
}
