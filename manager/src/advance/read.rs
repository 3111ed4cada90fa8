//! What a look reads: records, the queue, and what is left of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use air_nats::jobs::Key;
use air_nats::records::Lasts;
use air_protocol::approval::Rules;
use air_protocol::event::{Data, Kind};
use air_protocol::names::{JobName, TaskId};
use air_protocol::spec::Spec;

use super::{Failed, Look};
use crate::backlog::{Backlog, Context, TaskRef};
use crate::budget;
use crate::decide::{Folded, Pending};
use crate::expire::expired;
use crate::shared::now;

/// Messages read from a queue at once.
pub(super) const PAGE: usize = 64;
/// Records, or messages of another job's queue, read at once.
const RECORDS: usize = 256;
/// Repetitions of a read whose reply is older than what the key names.
const LAGS_MAX: u32 = 20;
/// Wait before the first repetition; one more for each further one.
const LAG: Duration = Duration::from_millis(5);

/// Waits for a replica that lags, a little longer each time.
#[derive(Default)]
struct Lag(u32);

impl Lag {
    /// Waits before the next repetition; false when there were enough of them.
    async fn wait(&mut self) -> bool {
        if self.0 == LAGS_MAX {
            return false;
        }
        self.0 += 1;
        tokio::time::sleep(LAG * self.0).await;
        true
    }
}

impl Look<'_> {
    /// Folds records up to now: at least up to the one that the key names.
    pub(super) async fn read_records(&mut self) -> Result<(), Failed> {
        let (mut ledger, named) = match self.key.state() {
            Some(state) => (state.ledger.clone(), state.last_record),
            None => Default::default(),
        };
        if self.key == Key::Absent {
            // Whatever was remembered is of a job that was removed.
            *self.backlog = Backlog::new(self.job.clone());
        }
        let spec = self.shared.spec(self.job).unwrap_or_default();
        self.backlog.heed(Rules::of(&spec));
        let mut from = self
            .backlog
            .begin(ledger.accounted, ledger.purged_to, now());
        let mut folded = Folded::default();
        let mut paid: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut lag = Lag::default();
        loop {
            let (records, more) = self
                .shared
                .nats
                .records_after(self.job, from, RECORDS)
                .await?;
            for (seq, record) in &records {
                if record.status == air_protocol::record::Status::Failed {
                    folded.failed = Some(record.task.clone());
                }
                if *seq > ledger.accounted
                    && let Some((account, run)) = budget::paid_by(record)
                {
                    paid.entry(account).or_default().push(run);
                }
                ledger.fold(*seq, record);
                self.backlog.learn(*seq, record, now());
                from = *seq;
            }
            if more {
                continue;
            }
            if from >= named || ledger.accounted >= named {
                break;
            }
            if !lag.wait().await {
                return self.check_ahead().await;
            }
        }
        budget::settle_recorded(self.shared, paid).await?;
        folded.ledger = ledger;
        self.folded = Some(folded);
        Ok(())
    }

    /// Replies stay older than what the key names: its records are gone (an older stream was restored, or
    /// somebody purged them), and it is rebuilt from those that are left; or the replies only lag, and the job is
    /// looked at again.
    async fn check_ahead(&mut self) -> Result<(), Failed> {
        let Key::State(state, _) = &self.key else {
            return Err(Failed::Lagging);
        };
        let nats = &self.shared.nats;
        let named = state.last_record.max(state.ledger.accounted);
        let end = nats.stream_end(&nats.names().stream()).await?;
        if end >= named && nats.records_end(self.job).await? >= state.last_record {
            return Err(Failed::Lagging);
        }
        tracing::error!(job = %self.job, named, end, "the key names records that are gone; rebuilding it");
        self.rebuild("it names records that are gone");
        Ok(())
    }

    pub(super) async fn read_queue(&mut self, spec: &Result<Spec, String>) -> Result<(), Failed> {
        let default = Spec::default();
        let spec = spec.as_ref().unwrap_or(&default);
        let foreign = self.backlog.asks_again();
        if !foreign.is_empty() && !self.foreign_asked {
            let lasts = self.lasts(&foreign, 0).await?;
            self.backlog.learn_lasts(&lasts);
            self.foreign_asked = true;
        }
        while self.in_context(spec, Backlog::wants_more) {
            let nats = &self.shared.nats;
            let (messages, pending) = nats.queued(self.job, self.backlog.next_seq(), PAGE).await?;
            let asks = self.backlog.asks(&messages);
            let end = messages.last().map_or(0, |message| message.seq);
            let lasts = self.lasts(&asks, end).await?;
            self.backlog.admit(messages, &lasts, pending, now());
        }
        let unsure = self.in_context(spec, Backlog::unsure);
        if !unsure.is_empty() {
            self.search(unsure).await?;
        }
        {
            let mut waits = self.shared.waits();
            waits.replace(self.job, self.backlog.waiting());
            waits.want(self.job, self.backlog.wanted());
        }
        let pick = self.in_context(spec, Backlog::pick);
        for (task, attempt, needs) in self.backlog.newly_blocked() {
            let data = Data {
                task: Some(task),
                attempt: Some(attempt),
                reason: Some(format!("waits for {needs}")),
                ..Data::default()
            };
            self.shared.tell(Kind::Blocked, self.job, data).await;
        }
        self.pick = Some(pick);
        self.expire(spec).await
    }

    fn in_context<T>(&self, spec: &Spec, ask: impl FnOnce(&Backlog, Context<'_>) -> T) -> T {
        let waits = self.shared.waits();
        let context = Context {
            now: now(),
            spec,
            waits: &waits,
        };
        ask(self.backlog, context)
    }

    /// The last records of tasks, from a replica that has seen all that this look has seen, and `at_least`.
    async fn lasts(&self, tasks: &[TaskRef], at_least: u64) -> Result<Lasts, Failed> {
        if tasks.is_empty() {
            return Ok(Lasts::default());
        }
        let named = self.key.state().map_or(0, |state| state.last_record);
        let at_least = at_least.max(named).max(self.backlog.known_to());
        let mut lag = Lag::default();
        loop {
            let lasts = self.shared.nats.last_records(self.job, tasks).await?;
            if lasts.up_to.is_some_and(|up_to| up_to >= at_least) {
                return Ok(lasts);
            }
            if !lag.wait().await {
                return Err(Failed::Lagging);
            }
        }
    }

    /// Searches the queues of other jobs for tasks that seem to be published by nobody.
    async fn search(&mut self, unsure: BTreeSet<TaskRef>) -> Result<(), Failed> {
        let mut by_job: BTreeMap<&JobName, BTreeSet<&TaskId>> = BTreeMap::new();
        for (job, task) in &unsure {
            by_job.entry(job).or_default().insert(task);
        }
        let mut queued = BTreeSet::new();
        for (job, mut tasks) in by_job {
            let mut from = 1;
            while !tasks.is_empty() {
                let (messages, pending) = self.shared.nats.queued(job, from, RECORDS).await?;
                for message in &messages {
                    from = message.seq + 1;
                    if tasks.remove(&message.id) {
                        queued.insert((job.clone(), message.id.clone()));
                    }
                }
                if pending == 0 {
                    break;
                }
            }
        }
        // Whoever was committed meanwhile is in no queue, and has a record.
        let asked: Vec<_> = unsure.into_iter().collect();
        let lasts = self.lasts(&asked, 0).await?;
        self.backlog.learn_lasts(&lasts);
        self.backlog.searched(asked, &queued, now());
        Ok(())
    }

    /// Looks for records whose time is over, now that the queue is known; the next write says so.
    async fn expire(&mut self, spec: &Spec) -> Result<(), Failed> {
        let Some(folded) = &mut self.folded else {
            return Ok(());
        };
        let has_records = folded.ledger.accounted > folded.ledger.purged_to;
        if !has_records || self.purged_full || !self.backlog.is_time_to_expire(now()) {
            return Ok(());
        }
        let (shared, backlog) = (self.shared, &*self.backlog);
        let found = expired(shared, self.job, spec, &folded.ledger, backlog, now()).await?;
        if let Some(found) = &found {
            folded.ledger.purge(found.up_to, found.counters);
        }
        self.expired = found;
        Ok(())
    }

    /// Schedules first, then messages: a schedule that fires in between is seen as a message.
    pub(super) async fn count(&mut self) -> Result<(), Failed> {
        self.delete_leftovers().await?;
        let nats = &self.shared.nats;
        let named = self
            .key
            .state()
            .map_or(0, |state| state.last_record.max(state.ledger.accounted));
        let mut lag = Lag::default();
        let (schedules, queue) = loop {
            let schedules = nats.depth(&nats.names().job_schedules(self.job)).await?;
            let queue = nats.depth(&nats.names().tasks(self.job)).await?;
            if queue.last_seq >= named {
                break (schedules, queue);
            }
            if !lag.wait().await {
                return self.check_ahead().await;
            }
        };
        // Counted before: what comes in between is newer than `last_seq`, and wakes somebody up.
        let last_queued = match queue.messages.is_empty() {
            true => 0,
            false => nats.last_queued(self.job).await?.unwrap_or(0),
        };
        let pending = Pending {
            schedules: schedules.messages.values().sum(),
            last_queued,
            last_seq: queue.last_seq,
        };
        if last_queued >= self.backlog.next_seq() && !self.scanned_anew {
            // Something came that no wake-up told this manager of.
            *self.backlog = Backlog::new(self.job.clone());
            self.scanned_anew = true;
            self.forget();
            return Ok(());
        }
        self.pending = Some(pending);
        Ok(())
    }
}
