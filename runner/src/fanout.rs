//! Fan-outs: sub-tasks that do not fit into one batch.
//!
//! A runner writes them to blobs, page by page, before its commit; the batch ends with a task that
//! queues the first of these pages together with the task for the next one. Such a task runs no
//! program, and is tried again without limit: the rest of a family must never be lost.

use air_nats::Error;
use air_nats::commit::NewTask;
use air_protocol::fate::Outcome;
use air_protocol::record::Status;
use air_protocol::task::{Fanout, Task, Work};

use crate::brake::Why;
use crate::clock;
use crate::execute::workdir::Workdir;
use crate::judge::Report;
use crate::patience::for_a_while;
use crate::record::Attempt;
use crate::settle::{Finish, settle};
use crate::subtasks::{Family, Parent, Rest, fresh_id, of_lines};

fn blob_name(fanout: &Fanout) -> String {
    format!("{}.{}", fanout.run, fanout.page)
}

/// The task that queues the page `fanout.page`.
fn task_of(attempt: &Attempt<'_>, fanout: Fanout) -> NewTask {
    NewTask {
        job: attempt.hold.job.clone(),
        id: fresh_id(),
        parent: Some(fanout.parent.clone()),
        task: Task::new(Work::Fanout(fanout)),
        attempt: 1,
        leash: attempt.found.below(),
        traceparent: attempt.found.queued.traceparent.clone(),
    }
}

/// Stores the pages after the first, and adds the task that queues them.
///
/// # Errors
/// Why they cannot be stored.
pub(crate) async fn store_rest(
    attempt: &Attempt<'_>,
    parent: Parent<'_>,
    workdir: &Workdir,
    family: &mut Family,
) -> Result<(), String> {
    let Some(from) = family.rest else {
        return Ok(());
    };
    let mut fanout = Fanout {
        run: attempt.hold.runner,
        parent: format!("{}/{}", parent.job, parent.task),
        page: 0,
        pages: 0,
    };
    let mut rest = Rest::open(&workdir.tasks(), from, parent)?;
    while let Some(page) = rest.next().await? {
        fanout.page += 1;
        let (name, lines) = (blob_name(&fanout), page.to_lines());
        let nats = &attempt.hold.nats;
        for_a_while(async || nats.put_blob(&name, &lines).await)
            .await
            .map_err(|error| format!("the sub-tasks could not be stored: {error}"))?;
    }
    fanout.pages = fanout.page + 1;
    fanout.page = 1;
    family.tasks.push(task_of(attempt, fanout));
    Ok(())
}

/// Queues one page, and deletes its blob once that is committed.
pub(crate) async fn run(attempt: &Attempt<'_>, fanout: &Fanout) -> Result<Finish, Error> {
    let hold = attempt.hold;
    let started = clock::now();
    let Some(tasks) = hold.unless_lost(load(attempt, fanout)).await else {
        return Ok(Finish::LOST);
    };
    let mut report = Report {
        started: Some(started),
        ..Report::new(Outcome::Succeeded)
    };
    match tasks {
        _ if hold.brake.why() == Some(Why::Cancelled) => {
            report = report.instead(Outcome::Cancelled, "a user cancelled the job");
        }
        Ok(tasks) => report.family.tasks = tasks,
        Err(text) => report = report.instead(Outcome::Later(None), &text),
    }
    let finish = settle(attempt, report).await?;
    if let Finish::Release {
        status: Some(Status::Succeeded),
        ..
    } = finish
        && let Err(error) = hold.nats.delete_blob(&blob_name(fanout)).await
    {
        tracing::warn!(%error, "a page that is queued could not be deleted");
    }
    Ok(finish)
}

/// The tasks of the page, and the one for the next page.
async fn load(attempt: &Attempt<'_>, fanout: &Fanout) -> Result<Vec<NewTask>, String> {
    let name = blob_name(fanout);
    let nats = &attempt.hold.nats;
    let blob = for_a_while(async || nats.get_blob(&name).await)
        .await
        .map_err(|error| format!("the page `{name}` cannot be read: {error}"))?
        .ok_or_else(|| {
            format!("the blob `{name}` with sub-tasks is missing; restore it, or cancel this task")
        })?;
    let tasks = of_lines(&blob).map_err(|text| format!("the page `{name}` is damaged: {text}"))?;
    let new = |(job, task): (_, Task)| NewTask {
        job,
        id: task.id.clone().unwrap_or_else(fresh_id),
        task,
        attempt: 1,
        parent: Some(fanout.parent.clone()),
        leash: attempt.found.below(),
        traceparent: attempt.found.queued.traceparent.clone(),
    };
    let mut tasks: Vec<_> = tasks.into_iter().map(new).collect();
    if fanout.page + 1 < fanout.pages {
        let next = Fanout {
            page: fanout.page + 1,
            ..fanout.clone()
        };
        tasks.push(task_of(attempt, next));
    }
    Ok(tasks)
}
