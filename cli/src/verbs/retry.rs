//! `airx retry`: runs failed and cancelled tasks again, and those that were skipped because of them.

use std::collections::{BTreeSet, HashMap};

use air_nats::Nats;
use air_nats::commit::{Commit, Committed, NewTask, With};
use air_nats::jobs::Key;
use air_nats::records::At;
use air_protocol::budget::Leash;
use air_protocol::job::{Event, JobStatus};
use air_protocol::names::{JobName, TaskId};
use air_protocol::record::{Record, Status};

use crate::app::{App, count, now};
use crate::select::{self, Selection};
use crate::task_view::Known;
use crate::{Exit, Failure, change};

/// Options of `airx retry`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Several jobs are written with commas between: airx retry a,b,'test-*'")]
pub struct Args {
    /// Jobs: names or patterns such as 'build-*', with commas between
    #[arg(value_name = "JOB", required_unless_present = "labels")]
    pub jobs: Option<String>,
    /// Only these tasks of the job, and those that were skipped because of them
    #[arg(value_name = "TASK")]
    pub tasks: Vec<TaskId>,
    /// Which of them.
    #[command(flatten)]
    pub selection: Selection,
}

/// Queues tasks again.
///
/// # Errors
/// A job or task that is not there, or that runs or waits.
pub async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let nats = app.nats().await?;
    let words: Vec<_> = args.jobs.iter().cloned().collect();
    let jobs = select::jobs(&nats, &words, &args.selection).await?;
    if !args.tasks.is_empty() && jobs.len() > 1 {
        return Err(Failure::Usage(
            "tasks are named of one job only; write several jobs with commas between: airx retry a,b".to_owned(),
        ));
    }
    for job in &jobs {
        retry(&nats, app, job, &args.tasks).await?;
    }
    Ok(Exit::Done)
}

async fn retry(nats: &Nats, app: &App, job: &JobName, tasks: &[TaskId]) -> Result<(), Failure> {
    let key = nats.job(job).await?;
    let ending = key
        .state()
        .is_some_and(|state| matches!(state.status, JobStatus::Cancelling | JobStatus::Removing));
    if ending {
        let name = key.state().map(|state| state.name()).unwrap_or_default();
        return Err(Failure::Refused(format!(
            "{job}: it is {name}; wait until that is done"
        )));
    }
    if let Key::Newer(_, reason) = &key {
        return Err(change::newer(job, reason));
    }
    let known = Known::all(nats, job).await?;
    if matches!(key, Key::Absent | Key::Deleted(_))
        && known.lasts.is_empty()
        && known.queued.is_empty()
    {
        return Err(Failure::NoJob(job.clone()));
    }
    for task in tasks {
        refuse_open(job, task, &known)?;
    }
    let chosen = choose(&known.lasts, tasks, job);
    if chosen.is_empty() {
        app.console
            .note(format_args!("{job}: no task has failed or was cancelled"));
        return Ok(());
    }
    let wire = nats
        .spec(job)
        .await?
        .0
        .map(|spec| spec.wire)
        .unwrap_or_default();
    let (mut done, mut lost) = (0, 0);
    for (seq, last) in chosen {
        let Some(commit) = reset(job, *seq, last, wire) else {
            lost += 1;
            continue;
        };
        match nats.commit(&commit).await? {
            Committed::At(_) => done += 1,
            // Somebody else did the same, or something newer.
            Committed::Over => {}
            Committed::Refused(reason) => {
                return Err(Failure::Refused(format!(
                    "{job}/{}: NATS refuses the record: {reason}",
                    last.task
                )));
            }
        }
    }
    if done > 0 {
        change::job(nats, job, &Event::Retry, true).await?;
    }
    app.console
        .note(format_args!("{job}: {} queued again", count(done, "task")));
    if lost > 0 {
        app.console.warn(format_args!(
            "{job}: {} cannot be run again, since the message was no valid task; `airx resume {job}` goes on without",
            count(lost, "task")
        ));
    }
    Ok(())
}

/// Refuses a task that is not over, succeeded, or is not there.
fn refuse_open(job: &JobName, task: &TaskId, known: &Known) -> Result<(), Failure> {
    match known.lasts.get(task).map(|(_, record)| record.status) {
        Some(Status::Failed | Status::Cancelled | Status::Skipped) => Ok(()),
        Some(Status::Succeeded) => Err(Failure::Refused(format!(
            "{job}/{task} has succeeded; only failed, cancelled and skipped tasks are run again"
        ))),
        Some(Status::Retrying | Status::Reset) => Err(open(job, task)),
        Some(Status::Parked) => Err(Failure::Refused(format!(
            "{job}/{task} waits for a person: `airx approve`, `airx reject` or `airx answer` it"
        ))),
        None if known.queued.iter().any(|queued| queued.id == *task) => Err(open(job, task)),
        None => Err(Failure::NoTask {
            job: job.clone(),
            task: task.clone(),
        }),
    }
}

fn open(job: &JobName, task: &TaskId) -> Failure {
    Failure::Refused(format!(
        "{job}/{task} is not over: it runs, or waits for its turn; cancel it first"
    ))
}

/// The records to reset, in the order in which the tasks were published.
fn choose<'a>(lasts: &'a HashMap<TaskId, At>, tasks: &[TaskId], job: &JobName) -> Vec<&'a At> {
    let over = |status| matches!(status, Status::Failed | Status::Cancelled | Status::Skipped);
    let mut chosen: Vec<&At> = lasts
        .values()
        .filter(|(_, record)| over(record.status))
        .collect();
    if !tasks.is_empty() {
        let mut wanted: BTreeSet<&TaskId> = tasks.iter().collect();
        loop {
            let before = wanted.len();
            let skipped = chosen
                .iter()
                .filter(|(_, record)| record.status == Status::Skipped);
            let because =
                skipped.filter(|(_, record)| needs(record, job).any(|task| wanted.contains(task)));
            let more: Vec<_> = because.map(|(_, record)| &record.task).collect();
            wanted.extend(more);
            if wanted.len() == before {
                break;
            }
        }
        chosen.retain(|(_, record)| wanted.contains(&record.task));
    }
    chosen.sort_by_key(|(seq, record)| (record.seq.unwrap_or(*seq), *seq));
    chosen
}

fn needs<'a>(record: &'a Record, job: &'a JobName) -> impl Iterator<Item = &'a TaskId> {
    let needs = record.spec.as_ref().map_or(&[][..], |spec| &spec.needs);
    needs
        .iter()
        .filter(move |need| need.job.as_ref().is_none_or(|other| other == job))
        .map(|need| &need.task)
}

/// A record that resets a task, with the message of its next attempt; none without a valid task.
fn reset(job: &JobName, seq: u64, last: &Record, wire: air_protocol::spec::Wire) -> Option<Commit> {
    let mut spec = last.spec.clone()?;
    spec.id = Some(last.task.clone());
    let mut record = Record::new(last.task.clone(), Status::Reset, last.attempt, now())
        .follows(Some(last.status), seq);
    record.parent.clone_from(&last.parent);
    record.set_leash(Leash::of_record(last));
    record.traceparent.clone_from(&last.traceparent);
    record.replies.clone_from(&last.replies);
    record.spec = Some(spec);
    let next = NewTask::again(job, last)?;
    Some(Commit {
        job: job.clone(),
        record,
        with: vec![With::Task(next)],
        wire,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use air_protocol::task::{Task, Work};
    use air_protocol::time::Time;

    fn last(id: &str, seq: u64, status: Status, needs: &[&str]) -> (TaskId, At) {
        let mut task = Task::new(Work::Run("x".into()));
        task.needs = needs.iter().map(|need| need.parse().unwrap()).collect();
        let mut record = Record::new(id.parse().unwrap(), status, 1, Time::default());
        record.spec = Some(task);
        (record.task.clone(), (seq, record))
    }

    #[test]
    fn skipped_tasks_follow_the_one_they_were_skipped_for() {
        let lasts: HashMap<_, _> = [
            last("a", 1, Status::Failed, &[]),
            last("b", 3, Status::Skipped, &["a"]),
            last("c", 2, Status::Skipped, &["j/b"]),
            last("d", 4, Status::Cancelled, &[]),
            last("e", 5, Status::Succeeded, &["a"]),
            last("f", 6, Status::Skipped, &["d", "k/a"]),
        ]
        .into();
        let job: JobName = "j".parse().unwrap();
        let names = |tasks: &[&str]| {
            let tasks: Vec<TaskId> = tasks.iter().map(|task| task.parse().unwrap()).collect();
            let chosen = choose(&lasts, &tasks, &job);
            chosen
                .iter()
                .map(|(_, record)| record.task.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&["a"]), ["a", "c", "b"]);
        assert_eq!(names(&[]), ["a", "c", "b", "d", "f"]);
    }
}
