//! Retention: finds records whose time (`keep`) is over, always a beginning of the job's history.
//!
//! Of a task that is not over, or that a queued task needs, the last record stays, and all after it. One
//! whose last record comes later may lose those before: its last one says all that matters. No message
//! that might belong to a purged record may be left in the queue: without it the message would be live again.

use air_nats::records::At;
use air_protocol::ledger::{Counters, Ledger};
use air_protocol::names::{JobName, TaskId};
use air_protocol::record::Status;
use air_protocol::spec::Spec;
use air_protocol::task::Task;
use air_protocol::time::Time;

use crate::advance::Failed;
use crate::backlog::Backlog;
use crate::shared::Shared;

/// Records looked at in one go; the next look takes the next ones.
const RECORDS: usize = 500;

/// Records that may be purged: up to this stream sequence, and what they count together with those purged before.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expired {
    pub(crate) up_to: u64,
    pub(crate) counters: Counters,
    /// Blobs that go with the records.
    pub(crate) blobs: Vec<String>,
    /// More may follow at once: as many were looked at as are in one go.
    pub(crate) more: bool,
}

/// Looks for records of a job whose time is over.
pub(crate) async fn expired(
    shared: &Shared,
    job: &JobName,
    spec: &Spec,
    ledger: &Ledger,
    backlog: &Backlog,
    now: Time,
) -> Result<Option<Expired>, Failed> {
    let old = |at: &&At| at.0 <= ledger.accounted && now.since(at.1.ended) >= spec.keep();
    let (first, _) = shared.nats.records_after(job, ledger.purged_to, 1).await?;
    if !first.iter().any(|first| old(&first)) {
        return Ok(None);
    }
    let (records, _) = shared
        .nats
        .records_after(job, ledger.purged_to, RECORDS)
        .await?;
    let mut records: Vec<At> = records.iter().take_while(old).cloned().collect();
    let more = records.len() == RECORDS;
    let mut tasks: Vec<_> = records
        .iter()
        .map(|(_, record)| (job.clone(), record.task.clone()))
        .collect();
    tasks.sort();
    tasks.dedup();
    let lasts = shared.nats.last_records(job, &tasks).await?;
    let needed = |task: &TaskId| shared.waits().is_needed(&(job.clone(), task.clone()));
    let last = |task: &TaskId| {
        let last = lasts.records.get(&(job.clone(), task.clone()));
        last.map(|(seq, _)| *seq)
    };
    cut(&mut records, last, needed);
    let Some((up_to, _)) = records.last() else {
        return Ok(None);
    };
    if !backlog.knows_to(*up_to) {
        return Ok(None);
    }
    let mut purged = ledger.of_purged();
    for (seq, record) in &records {
        purged.fold(*seq, record);
    }
    Ok(Some(Expired {
        up_to: *up_to,
        counters: purged.counters,
        blobs: blobs(job, &records, last),
        more,
    }))
}

/// Blobs that go with the records: outputs, transcripts, sessions of tasks that are over, and the pages of fan-outs that did not queue them.
fn blobs(job: &JobName, records: &[At], last: impl Fn(&TaskId) -> Option<u64>) -> Vec<String> {
    let lasts = || (records.iter()).filter(|(seq, record)| last(&record.task) == Some(*seq));
    let left = lasts().filter(|(_, record)| record.status != Status::Succeeded);
    let pages = left.flat_map(|(_, record)| record.spec.iter().flat_map(Task::blobs));
    let sessions = lasts().flat_map(|(_, record)| record.sessions(job));
    let own = records.iter().flat_map(|(_, record)| record.blobs());
    own.chain(sessions).chain(pages).collect()
}

/// Cuts records off the end, from the first on that must stay: the last one of a task that is not over, or is needed.
fn cut(
    records: &mut Vec<At>,
    last: impl Fn(&TaskId) -> Option<u64>,
    needed: impl Fn(&TaskId) -> bool,
) {
    let stays = |(seq, record): &At| match last(&record.task) {
        Some(last) if last > *seq => false,
        Some(_) => !record.status.is_final() || needed(&record.task),
        None => true,
    };
    if let Some(first) = records.iter().position(stays) {
        records.truncate(first);
    }
}

#[cfg(test)]
mod tests {
    use air_protocol::agent::AgentRun;
    use air_protocol::claude::Claude;
    use air_protocol::record::Record;
    use air_protocol::task::{Fanout, Work};

    use super::*;

    fn at(seq: u64, task: &str, status: Status) -> At {
        (
            seq,
            Record::new(task.parse().unwrap(), status, 1, Time::default()),
        )
    }

    #[test]
    fn pages_go_with_the_last_record_unless_it_queued_its_own() {
        let fanout = |seq, task: &str, status, page| {
            let (seq, mut record) = at(seq, task, status);
            record.spec = Some(Task::new(Work::Fanout(Fanout {
                run: uuid::Uuid::nil(),
                parent: "j/p".into(),
                page,
                pages: 4,
            })));
            (seq, record)
        };
        let mut records = vec![
            fanout(1, "first", Status::Cancelled, 1),
            fanout(2, "first", Status::Reset, 1),
            fanout(3, "first", Status::Succeeded, 1),
            fanout(4, "second", Status::Cancelled, 2),
            at(5, "other", Status::Succeeded),
        ];
        records[4].1.output_blob = Some("output".into());
        let run = uuid::Uuid::nil();
        let wanted = ["output".to_owned(), format!("{run}.2"), format!("{run}.3")];
        let last = |task: &TaskId| {
            let of_task = records.iter().filter(|(_, record)| record.task == *task);
            of_task.map(|(seq, _)| *seq).max()
        };
        let job = "j".parse().unwrap();
        assert_eq!(blobs(&job, &records, last), wanted);
        let later = |_: &TaskId| Some(9);
        let left = blobs(&job, &records, later);
        assert_eq!(left, ["output"], "they went on later");
    }

    #[test]
    fn the_session_of_an_agent_goes_with_the_last_record_only() {
        let mut record = at(3, "a", Status::Failed);
        let work = Work::Claude(Box::new(Claude::new("p")));
        record.1.spec = Some(Task::new(work));
        record.1.agent = Some(AgentRun {
            transcript: Some("t".into()),
            ..AgentRun::default()
        });
        let job = "j".parse().unwrap();
        let records = [record];
        assert_eq!(blobs(&job, &records, |_| Some(3)), ["t", "j.a.session"]);
        assert_eq!(blobs(&job, &records, |_| Some(4)), ["t"]);
    }

    fn kept(mut records: Vec<At>, last: impl Fn(&str) -> Option<u64>, needed: &str) -> Vec<u64> {
        let needed = |task: &TaskId| task.as_str() == needed;
        cut(&mut records, |task| last(task.as_str()), needed);
        records.into_iter().map(|(seq, _)| seq).collect()
    }

    #[test]
    fn the_last_record_of_an_open_or_needed_task_stays() {
        let records = || {
            vec![
                at(1, "a", Status::Succeeded),
                at(2, "b", Status::Retrying),
                at(3, "c", Status::Succeeded),
                at(4, "b", Status::Succeeded),
            ]
        };
        let lasts = |task: &str| match task {
            "a" => Some(1),
            "b" => Some(4),
            _ => Some(3),
        };
        let but = |task: &'static str, last: Option<u64>| {
            move |other: &str| if other == task { last } else { lasts(other) }
        };
        let none = [0_u64; 0];
        assert_eq!(kept(records(), lasts, ""), [1, 2, 3, 4]);
        assert_eq!(kept(records(), lasts, "a"), none, "a is needed");
        assert_eq!(kept(records(), lasts, "b"), [1, 2, 3], "b is needed");
        assert_eq!(kept(records(), but("a", None), ""), none, "unknown");
        let going_on = but("b", Some(9));
        assert_eq!(kept(records(), going_on, ""), [1, 2, 3, 4], "b goes on");
        let open = but("b", Some(2));
        assert_eq!(kept(records()[..3].to_vec(), open, ""), [1], "b is open");
        let begun = vec![at(1, "a", Status::Succeeded), at(2, "b", Status::Retrying)];
        assert_eq!(kept(begun, open, ""), [1], "b has only begun");
    }

    #[test]
    fn tasks_that_overlap_without_end_stay_bounded() {
        // Each task's last record comes after the first one of the next task.
        let names: Vec<String> = (0..10).map(|n| format!("t{n}")).collect();
        let mut records = Vec::new();
        for (n, name) in (0_u64..).zip(&names) {
            records.push(at(2 * n + 1, name, Status::Retrying));
            if n > 0 {
                records.push(at(2 * n + 2, &names[n as usize - 1], Status::Succeeded));
            }
        }
        let last = |task: &str| Some(2 * task[1..].parse::<u64>().unwrap() + 4);
        assert_eq!(kept(records.clone(), last, "").len(), records.len());
    }
}
