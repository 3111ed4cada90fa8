//! `airx tasks`: the tasks of a job.

use air_nats::jobs::Key;
use air_protocol::approval::Waits;
use air_protocol::names::{JobName, TaskId};
use air_protocol::task::Need;
use clap::builder::PossibleValuesParser;

use crate::app::{App, now, short};
use crate::table::Table;
use crate::task_view::{Known, TaskView, statuses};
use crate::{Exit, Failure};

/// Options of `airx tasks`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The job
    pub job: JobName,
    /// Only tasks of this status; may be given several times
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(statuses()))]
    pub status: Vec<String>,
}

/// Shows the tasks.
///
/// # Errors
/// There is no such job, or NATS does not answer.
pub async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let nats = app.nats().await?;
    let key = nats.job(&args.job).await?;
    let known = Known::all(&nats, &args.job).await?;
    let mut views = known.views(&args.job, key.state());
    if views.is_empty() && matches!(key, Key::Absent | Key::Deleted(_)) {
        return Err(Failure::NoJob(args.job.clone()));
    }
    if !args.status.is_empty() {
        views.retain(|view| args.status.iter().any(|status| status == view.status));
    }
    app.console
        .data(&views, || app.console.table(&table(&views)))?;
    Ok(Exit::Done)
}

fn table(views: &[TaskView]) -> Table {
    let mut table = Table::new(&["TASK", "STATUS", "ATTEMPT", "AGE", "DETAIL", "WORK"]);
    let now = now();
    for view in views {
        let age = view
            .ended
            .or(view.queued)
            .map(|time| short(now.since(time)));
        table.row([
            view.task.to_string(),
            view.status.to_owned(),
            view.attempt.to_string(),
            age.unwrap_or_default(),
            detail(view),
            cut(&view.work, 80),
        ]);
    }
    table
}

/// What one has to know of a task beside its status.
pub fn detail(view: &TaskView) -> String {
    if let Some(need) = view.unknown.first() {
        return format!("needs {need}, which nobody has queued");
    }
    if !view.waits_for.is_empty() {
        let needs: Vec<_> = view.waits_for.iter().take(5).map(Need::to_string).collect();
        let more = if view.waits_for.len() > 5 {
            ", …"
        } else {
            ""
        };
        return format!("needs {}{more}", needs.join(", "));
    }
    match &view.person {
        Some(Waits::Approval { reason }) => return cut(&format!("approve? {reason}"), 80),
        Some(Waits::Answer { question }) => return cut(&format!("asks: {question}"), 80),
        None => {}
    }
    if view.status == "scheduled" {
        return match view.due {
            Some(due) => format!("due in {}", short(due.since(now()))),
            None => "due later".to_owned(),
        };
    }
    view.error
        .as_deref()
        .map(|error| cut(error, 80))
        .unwrap_or_default()
}

/// What a person may say to a task that waits for one: the commands.
pub fn answers(job: &JobName, task: &TaskId, waits: &Waits) -> String {
    match waits {
        Waits::Approval { .. } => {
            format!("`airx approve {job} {task}` or `airx reject {job} {task}`")
        }
        Waits::Answer { .. } => format!("`airx answer {job} {task} TEXT`"),
    }
}

/// At most so many characters of the first line.
pub fn cut(text: &str, most: usize) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    match line.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}
