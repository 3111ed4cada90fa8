//! Reads the history of a job, page by page, and hands it to the checker.

use std::collections::HashSet;
use std::time::Duration;

use air_nats::Nats;
use air_nats::history::Recorded;
use air_nats::jobs::Key;
use air_nats::queue::Queued;
use air_protocol::event::Event;
use air_protocol::job::JobStatus;
use air_protocol::names::{JobName, TaskId};
use air_protocol::task::Work;
use air_protocol::verify::{
    Charges, Families, JobCheck, Message, Now, Place, Suspect, binds, short,
};

use super::Verify;
use crate::Failure;

/// Events that one reply brings.
const PAGE: usize = 256;

/// A job's history, as it went through the checker.
pub(super) struct Read {
    pub(super) check: JobCheck,
    pub(super) charges: Charges,
    pub(super) records: u64,
    pub(super) messages: u64,
    pub(super) events: u64,
    /// Outputs that were not where their records say.
    pub(super) outputs: Vec<Suspect>,
}

impl Read {
    /// Whether there is anything of the job; events alone may be of one that was removed.
    pub(super) fn is_there(&self, now: &Now) -> bool {
        now.state.is_some() || self.records + self.messages > 0
    }
}

impl Verify<'_> {
    /// The key, the history, and the key again.
    pub(super) async fn read(
        &self,
        job: &JobName,
        families: &mut Families,
    ) -> Result<(Read, Now), Failure> {
        let before = self.nats.job(job).await?;
        let state = before.state().cloned();
        let mut read = Read {
            check: JobCheck::new(job.clone(), state, before.revision()),
            charges: Charges::default(),
            records: 0,
            messages: 0,
            events: 0,
            outputs: Vec::new(),
        };
        self.records(job, &mut read, families).await?;
        self.messages(job, &mut read, families).await?;
        self.events(job, &mut read).await?;
        let entry = self.nats.job_entry(job).await?;
        let after = Key::of_entry(entry.as_ref());
        // Only leases and stops are judged by the time.
        let age = match (&entry, after.state().map(|state| &state.status)) {
            (Some(entry), Some(JobStatus::Working { .. } | JobStatus::Failed { .. })) => {
                self.nats.server_time().await?.since(entry.time)
            }
            _ => Duration::ZERO,
        };
        let now = Now {
            state: after.state().cloned(),
            revision: after.revision(),
            age,
            unchanged: after.revision() == before.revision(),
            managed: self.managed,
        };
        Ok((read, now))
    }

    async fn records(
        &self,
        job: &JobName,
        read: &mut Read,
        families: &mut Families,
    ) -> Result<(), Failure> {
        let mut from = Some(1);
        while let Some(at) = from {
            let page = self.nats.record_page(job, at).await?;
            for recorded in &page.items {
                read.records += 1;
                self.record(recorded, read, families).await?;
            }
            self.progress
                .show(0, 0, &format!("{job}: {} records", read.records));
            from = page.next;
        }
        Ok(())
    }

    async fn record(
        &self,
        recorded: &Recorded,
        read: &mut Read,
        families: &mut Families,
    ) -> Result<(), Failure> {
        let task = self.task(recorded);
        let (Ok(record), Some(task)) = (&recorded.record, &task) else {
            let (subject, seq) = (&recorded.subject, recorded.seq);
            read.check.unreadable(subject, task.as_ref(), seq);
            return Ok(());
        };
        read.check.record(recorded.seq, task, record, families);
        self.accounts.record(record, &mut read.charges);
        if let Some(blob) = &record.output_blob
            && !self.nats.has_blob(blob).await?
        {
            let suspect = Suspect::Output(task.clone(), recorded.seq, blob.clone());
            read.outputs.push(suspect);
        }
        Ok(())
    }

    fn task(&self, recorded: &Recorded) -> Option<TaskId> {
        self.nats
            .names()
            .task_token(&recorded.subject)?
            .parse()
            .ok()
    }

    async fn messages(
        &self,
        job: &JobName,
        read: &mut Read,
        families: &mut Families,
    ) -> Result<(), Failure> {
        each_message(self.nats, job, |queued, scheduled| {
            read.messages += 1;
            read.check.message(&message(queued, scheduled), families);
            true
        })
        .await
    }

    async fn events(&self, job: &JobName, read: &mut Read) -> Result<(), Failure> {
        let mut from = 1;
        loop {
            let events = self.nats.events(Some(job), from, PAGE).await?;
            let Some(last) = events.last() else {
                return Ok(());
            };
            from = last.seq + 1;
            for stored in &events {
                read.events += 1;
                if let Ok(event) = serde_json::from_slice::<Event>(&stored.payload) {
                    read.check.event(stored.seq, &event);
                }
            }
        }
    }
}

/// Shows all messages of a job, and whether each is scheduled, as long as `see` wants more. Schedules first: one that
/// fires meanwhile is seen in the queue.
pub(super) async fn each_message(
    nats: &Nats,
    job: &JobName,
    mut see: impl FnMut(&Queued, bool) -> bool,
) -> Result<(), Failure> {
    for scheduled in [true, false] {
        let mut from = Some(1);
        while let Some(at) = from {
            let page = match scheduled {
                true => nats.schedule_page(job, at).await?,
                false => nats.queue_page(job, at).await?,
            };
            if !page.items.iter().all(|queued| see(queued, scheduled)) {
                return Ok(());
            }
            from = page.next;
        }
    }
    Ok(())
}

fn message(queued: &Queued, scheduled: bool) -> Message {
    let task = queued.task.as_ref().ok();
    let fanout = task.and_then(|task| match &task.work {
        Work::Fanout(fanout) => Some(fanout.clone()),
        Work::Run(_) | Work::Exec(_) | Work::Claude(_) => None,
    });
    Message {
        scheduled,
        seq: queued.seq,
        task: queued.id.clone(),
        attempt: queued.attempt,
        parent: queued.parent.clone(),
        fanout,
        binds: binds(task, queued.attempt),
    }
}

/// Tells the families of the sub-tasks in another job.
pub(super) async fn kin(
    nats: &Nats,
    job: &JobName,
    families: &mut Families,
) -> Result<(), Failure> {
    let mut seen = HashSet::new();
    let mut from = Some(1);
    while let Some(at) = from {
        let page = nats.record_page(job, at).await?;
        for recorded in &page.items {
            let Ok(record) = &recorded.record else {
                continue;
            };
            if let Some(parent) = record.parent.as_ref().filter(|_| !record.is_fanout())
                && seen.insert(short(&record.task))
            {
                let place = Place::Record(Some(record.task.clone()), recorded.seq);
                let message = record.seq.unwrap_or(0);
                families.child(parent, job, &record.task, message, place);
            }
        }
        from = page.next;
    }
    each_message(nats, job, |queued, scheduled| {
        let message = message(queued, scheduled);
        if let Some(parent) = message.parent.as_ref().filter(|_| message.fanout.is_none())
            && seen.insert(short(&message.task))
        {
            let place = Place::Queue(job.clone(), message.seq);
            families.child(parent, job, &message.task, message.seq, place);
        }
        true
    })
    .await
}
