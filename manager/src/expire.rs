//! Retention: finds records whose time (`keep`) is over, always a beginning of the job's history.
//!
//! A beginning is taken only up to where every task in it is over within it, no queued task needs
//! one of them, and no message that might belong to them is left in the queue: without its record
//! such a message would be live again.

use std::collections::HashMap;

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
    if records.is_empty() {
        return Ok(None);
    }
    let mut tasks: Vec<_> = records
        .iter()
        .map(|(_, record)| (job.clone(), record.task.clone()))
        .collect();
    tasks.sort();
    tasks.dedup();
    let lasts = shared.nats.last_records(job, &tasks).await?;
    let needed = |task: &TaskId| shared.waits().is_needed(&(job.clone(), task.clone()));
    let last = |task: &TaskId| {
        lasts
            .records
            .get(&(job.clone(), task.clone()))
            .map_or(u64::MAX, |(seq, _)| *seq)
    };
    keep_whole_tasks(&mut records, |task| {
        if needed(task) { u64::MAX } else { last(task) }
    });
    let Some((up_to, _)) = records.last() else {
        return Ok(None);
    };
    if !backlog.knows_to(*up_to) {
        return Ok(None);
    }
    let mut purged = Ledger {
        counters: ledger.purged.unwrap_or_default(),
        accounted: ledger.purged_to,
        ..Ledger::default()
    };
    for (seq, record) in &records {
        purged.fold(*seq, record);
    }
    Ok(Some(Expired {
        up_to: *up_to,
        counters: purged.counters,
        blobs: blobs(&records),
    }))
}

/// Blobs that go with the records: outputs, and the pages of fan-outs that did not queue them.
fn blobs(records: &[At]) -> Vec<String> {
    let records = records.iter().map(|(_, record)| record);
    let lasts: HashMap<_, _> = records
        .clone()
        .map(|record| (&record.task, record))
        .collect();
    let left = lasts
        .values()
        .filter(|last| last.status != Status::Succeeded);
    let pages = left.flat_map(|last| last.spec.iter().flat_map(Task::blobs));
    let outputs = records.filter_map(|record| record.output_blob.clone());
    outputs.chain(pages).collect()
}

/// Cuts records off the end until every task has all its records in, and is over.
fn keep_whole_tasks(records: &mut Vec<At>, last: impl Fn(&TaskId) -> u64) {
    loop {
        let mut first = HashMap::new();
        let mut is_over = HashMap::new();
        for (seq, record) in records.iter() {
            first.entry(&record.task).or_insert(*seq);
            is_over.insert(&record.task, record.status.is_final());
        }
        let end = records.last().map_or(0, |(seq, _)| *seq);
        let open = |task: &&&TaskId| !is_over[**task] || last(task) > end;
        let Some(cut) = first.keys().filter(open).map(|task| first[*task]).min() else {
            return;
        };
        records.retain(|(seq, _)| *seq < cut);
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(blobs(&records), wanted);
    }

    fn kept(mut records: Vec<At>, last: impl Fn(&str) -> u64) -> Vec<u64> {
        keep_whole_tasks(&mut records, |task| last(task.as_str()));
        records.into_iter().map(|(seq, _)| seq).collect()
    }

    #[test]
    fn whole_tasks_go_together() {
        let records = || {
            vec![
                at(1, "a", Status::Succeeded),
                at(2, "b", Status::Retrying),
                at(3, "c", Status::Succeeded),
                at(4, "b", Status::Succeeded),
            ]
        };
        let lasts = |task: &str| match task {
            "a" => 1,
            "b" => 4,
            _ => 3,
        };
        let but = |task: &'static str, last: u64| {
            move |other: &str| if other == task { last } else { lasts(other) }
        };
        let none = [0_u64; 0];
        assert_eq!(kept(records(), lasts), [1, 2, 3, 4]);
        assert_eq!(kept(records(), but("b", 9)), [1], "b went on later");
        assert_eq!(kept(records(), but("a", u64::MAX)), none, "a is needed");
        assert_eq!(kept(records()[..3].to_vec(), lasts), [1], "b is open");
    }
}
