//! The backlog: what a manager knows of one job's queue, so that a pick does not read it anew.
//!
//! Pure. Messages come in by [`Backlog::admit`], records by [`Backlog::learn`]; [`Backlog::pick`]
//! says what may run, what is decided without running, and what is left over. Knowing too little
//! is harmless: the claim's revision and the record's expectation decide.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use air_nats::queue::Queued;
use air_nats::records::Lasts;
use air_protocol::lease::{Decision, Target, Verdict};
use air_protocol::limits::DECISIONS_MAX;
use air_protocol::names::{JobName, TaskId};
use air_protocol::record::{Last, Record, Status, is_live};
use air_protocol::spec::Spec;
use air_protocol::task::{Need, When};
use air_protocol::time::Time;

use crate::circle;

/// Time between two looks of one manager at the age of a job's records.
const EXPIRY_EVERY: Duration = Duration::from_secs(60);

/// A task of a job.
pub type TaskRef = (JobName, TaskId);

/// What is known of one job's queue.
#[derive(Debug, Clone)]
pub struct Backlog {
    job: JobName,
    entries: BTreeMap<u64, Entry>,
    /// Messages that will never be live, and since when that is known.
    leftovers: BTreeMap<u64, Time>,
    /// Messages up to this sequence are known.
    cursor: u64,
    /// Records of the job up to this sequence are known.
    known_to: u64,
    /// Records that the key had counted at the last look.
    accounted: u64,
    /// Whether the end of the queue was seen.
    whole: bool,
    /// When records were last looked at for their age.
    expiry: Option<Time>,
}

#[derive(Debug, Clone)]
struct Entry {
    id: TaskId,
    attempt: u32,
    last: Option<Last>,
    queued: Time,
    not_before: Option<Time>,
    backend: Option<String>,
    image: Option<String>,
    /// Needs that are not met yet.
    needs: Vec<Need>,
    /// All needs: their records must stay until the task has run.
    wants: Vec<Need>,
    /// What is known of tasks of other jobs, and of the own one, that are over or open.
    seen: HashMap<TaskRef, Status>,
    invalid: Option<String>,
    /// Whether it was told that the task waits.
    told: bool,
}

/// What may be done next.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pick {
    /// The first task that may run.
    pub ready: Option<Ready>,
    /// Tasks whose fate is decided without running them.
    pub decisions: Vec<Decision>,
    /// Tasks that wait for others: their message, and what they wait for.
    pub blocked: Vec<(TaskId, Vec<Need>)>,
    /// Messages that are left over.
    pub leftovers: usize,
    /// Messages up to this sequence were looked at.
    pub scanned_to: u64,
}

/// A task that may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// The attempt.
    pub target: Target,
    /// The backend that it asks for.
    pub backend: Option<String>,
    /// The image that it asks for.
    pub image: Option<String>,
}

/// What a pick needs besides the backlog.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The moment.
    pub now: Time,
    /// The job's spec.
    pub spec: &'a Spec,
    /// Tasks of all jobs that wait for others, as far as this manager knows.
    pub waits: &'a circle::Waits,
}

impl Pick {
    /// Whether there is any task.
    pub fn has_live(&self) -> bool {
        self.ready.is_some() || !self.decisions.is_empty() || !self.blocked.is_empty()
    }
}

enum Judgement {
    Ready,
    Blocked,
    Decided(Verdict),
}

impl Backlog {
    /// Nothing is known of the job's queue.
    pub fn new(job: JobName) -> Self {
        Self {
            job,
            entries: BTreeMap::new(),
            leftovers: BTreeMap::new(),
            cursor: 0,
            known_to: 0,
            accounted: 0,
            whole: false,
            expiry: None,
        }
    }

    /// Another look begins: says from which record on the job's history is to be read. What is known
    /// stays known, unless records that it would have to learn are purged, or the key has counted fewer
    /// than before: then the job was removed, and what is queued now belongs to a new one.
    pub fn begin(&mut self, accounted: u64, purged_to: u64) -> u64 {
        if self.is_empty() || self.known_to < purged_to || accounted < self.accounted {
            *self = Self::new(self.job.clone());
            self.known_to = accounted;
        }
        self.accounted = accounted;
        self.known_to.min(accounted)
    }

    /// Whether it is time to look for records whose time is over; once a minute.
    pub fn is_time_to_expire(&mut self, now: Time) -> bool {
        let is_time = self
            .expiry
            .is_none_or(|before| now.since(before) >= EXPIRY_EVERY);
        if is_time {
            self.expiry = Some(now);
        }
        is_time
    }

    /// Whether every message up to this sequence was seen, and none of them is left over.
    pub fn knows_to(&self, seq: u64) -> bool {
        (self.whole || self.cursor >= seq) && self.leftovers.range(..=seq).next().is_none()
    }

    /// The sequence from which the queue is to be read on.
    pub fn next_seq(&self) -> u64 {
        self.cursor + 1
    }

    /// New messages may have come.
    pub fn expect_more(&mut self) {
        self.whole = false;
    }

    /// Whether more of the queue is to be read before a pick: nothing that is known may run.
    pub fn wants_more(&self, context: Context<'_>) -> bool {
        let has_ready = || {
            self.judged(context)
                .any(|(_, _, judgement)| !matches!(judgement, Judgement::Blocked))
        };
        !self.whole && !has_ready()
    }

    /// Messages that are left over, and known to be for `age` at least.
    pub fn leftovers(&self, now: Time, age: Duration) -> Vec<u64> {
        let due = |since: &Time| now.since(*since) >= age;
        self.leftovers
            .iter()
            .take_while(|(_, since)| due(since))
            .map(|(seq, _)| *seq)
            .collect()
    }

    /// Whether nothing is worth remembering.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.leftovers.is_empty()
    }

    /// A left-over message was deleted.
    pub fn deleted(&mut self, seq: u64) {
        self.leftovers.remove(&seq);
    }

    /// Tasks whose last records are needed to admit `messages`.
    pub fn asks(&self, messages: &[Queued]) -> Vec<TaskRef> {
        let mut wanted = BTreeSet::new();
        for message in messages {
            wanted.insert((self.job.clone(), message.id.clone()));
            let needs = message.task.as_ref().map_or(&[][..], |task| &task.needs);
            wanted.extend(needs.iter().map(|need| self.task_of(need)));
        }
        wanted.into_iter().collect()
    }

    /// Tasks of other jobs whose last records may have changed.
    pub fn asks_again(&self) -> Vec<TaskRef> {
        let needs = self.entries.values().flat_map(|entry| &entry.needs);
        let wanted: BTreeSet<_> = needs
            .filter(|need| need.job.as_ref().is_some_and(|job| *job != self.job))
            .map(|need| self.task_of(need))
            .collect();
        wanted.into_iter().collect()
    }

    fn task_of(&self, need: &Need) -> TaskRef {
        (
            need.job.clone().unwrap_or_else(|| self.job.clone()),
            need.task.clone(),
        )
    }

    /// Takes in messages with the last records of what [`Backlog::asks`] named; `pending` more follow.
    pub fn admit(&mut self, messages: Vec<Queued>, lasts: &Lasts, pending: u64, now: Time) {
        for message in messages {
            self.cursor = self.cursor.max(message.seq);
            let last = lasts.records.get(&(self.job.clone(), message.id.clone()));
            let last = last.map(|(seq, record)| record.last(*seq));
            if !is_live(message.attempt, last) {
                if is_surely_over(&message, last, lasts.up_to) {
                    self.leftovers.insert(message.seq, now);
                }
                continue;
            }
            self.entries.insert(message.seq, Entry::new(message, last));
        }
        self.whole = pending == 0;
        self.learn_lasts(lasts);
    }

    /// Takes in last records of needed tasks.
    pub fn learn_lasts(&mut self, lasts: &Lasts) {
        let job = self.job.clone();
        for entry in self.entries.values_mut() {
            for need in &entry.needs {
                let task = (
                    need.job.clone().unwrap_or_else(|| job.clone()),
                    need.task.clone(),
                );
                if let Some((_, record)) = lasts.records.get(&task) {
                    entry.seen.insert(task, record.status);
                }
            }
            entry.forget_met(&job);
        }
    }

    /// Takes in a record of the job, stored at `seq`.
    pub fn learn(&mut self, seq: u64, record: &Record, now: Time) {
        self.known_to = self.known_to.max(seq);
        let mut over = Vec::new();
        for (at, entry) in &mut self.entries {
            if entry.id == record.task {
                entry.last = Some(record.last(seq));
                if !is_live(entry.attempt, entry.last) && entry.attempt <= record.attempt {
                    over.push(*at);
                }
            }
            if entry.needs.iter().any(|need| need.task == record.task) {
                entry
                    .seen
                    .insert((self.job.clone(), record.task.clone()), record.status);
                entry.forget_met(&self.job);
            }
        }
        for at in over {
            self.entries.remove(&at);
            self.leftovers.insert(at, now);
        }
        if let Some(consumed) = record.seq
            && consumed <= self.cursor
            && !self.entries.contains_key(&consumed)
        {
            self.leftovers.insert(consumed, now);
        }
    }

    /// Tasks that wait, with what they wait for.
    pub fn waiting(&self) -> impl Iterator<Item = (TaskRef, Vec<TaskRef>)> + '_ {
        self.entries
            .values()
            .filter(|entry| !entry.needs.is_empty())
            .map(|entry| {
                let needs = entry.needs.iter().map(|need| self.task_of(need)).collect();
                ((self.job.clone(), entry.id.clone()), needs)
            })
    }

    /// Tasks whose records must stay: one that is queued needs them.
    pub fn wanted(&self) -> impl Iterator<Item = TaskRef> + '_ {
        self.entries
            .values()
            .flat_map(|entry| &entry.wants)
            .map(|need| self.task_of(need))
    }

    /// Tasks that wait, and of which this was not told before: attempt and needs.
    pub fn newly_blocked(&mut self) -> Vec<(TaskId, u32, String)> {
        let waiting = self
            .entries
            .values_mut()
            .filter(|entry| !entry.needs.is_empty() && !entry.told);
        waiting
            .map(|entry| {
                entry.told = true;
                let needs: Vec<_> = entry.needs.iter().map(Need::to_string).collect();
                (entry.id.clone(), entry.attempt, needs.join(", "))
            })
            .collect()
    }

    /// Says what may be done next.
    pub fn pick(&self, context: Context<'_>) -> Pick {
        let mut pick = Pick {
            leftovers: self.leftovers.len(),
            scanned_to: self.cursor,
            ..Pick::default()
        };
        for (seq, entry, judgement) in self.judged(context) {
            match judgement {
                Judgement::Decided(verdict) if pick.decisions.len() < DECISIONS_MAX => {
                    pick.decisions.push(Decision {
                        target: entry.target(seq),
                        verdict,
                    });
                }
                Judgement::Decided(_) => break,
                Judgement::Ready => {
                    let backend = entry
                        .backend
                        .clone()
                        .or_else(|| context.spec.backend.clone());
                    let image = entry.image.clone().or_else(|| context.spec.image.clone());
                    pick.ready = Some(Ready {
                        target: entry.target(seq),
                        backend,
                        image,
                    });
                    break;
                }
                Judgement::Blocked => pick.blocked.push((entry.id.clone(), entry.needs.clone())),
            }
        }
        pick
    }

    fn judged<'a>(
        &'a self,
        context: Context<'a>,
    ) -> impl Iterator<Item = (u64, &'a Entry, Judgement)> + 'a {
        self.entries
            .iter()
            .filter(|(_, entry)| is_live(entry.attempt, entry.last))
            .map(move |(seq, entry)| (*seq, entry, self.judge(entry, context)))
    }

    fn judge(&self, entry: &Entry, context: Context<'_>) -> Judgement {
        if let Some(reason) = &entry.invalid {
            return Judgement::Decided(Verdict::Fail {
                reason: reason.clone(),
            });
        }
        for need in &entry.needs {
            let task = self.task_of(need);
            let status = entry.seen.get(&task);
            if let Some(status) = status
                && status.meets(need.when) == Some(false)
            {
                let reason = format!(
                    "needs {need} {}, which is {}",
                    when(need.when),
                    status.as_str()
                );
                return Judgement::Decided(Verdict::Skip { reason });
            }
            if status.is_none() && self.is_overdue(entry, need, context) {
                let reason =
                    format!("needs {need}, which nobody published within the job's needs_timeout");
                return Judgement::Decided(Verdict::Skip { reason });
            }
        }
        if !entry.needs.is_empty() {
            let start = (self.job.clone(), entry.id.clone());
            return match context.waits.circle(&start) {
                Some(circle) => Judgement::Decided(Verdict::Fail {
                    reason: format!(
                        "waits for itself: {}; take one of these needs out",
                        circle::text(&circle, &self.job)
                    ),
                }),
                None => Judgement::Blocked,
            };
        }
        match entry.not_before {
            Some(until) if until > context.now => Judgement::Decided(Verdict::Move { until }),
            _ => Judgement::Ready,
        }
    }

    fn is_overdue(&self, entry: &Entry, need: &Need, context: Context<'_>) -> bool {
        let Some(timeout) = context.spec.needs_timeout else {
            return false;
        };
        let own = need.job.as_ref().is_none_or(|job| *job == self.job);
        // It may stand in the part of the queue that is not read yet.
        let is_here = || self.entries.values().any(|other| other.id == need.task);
        let queued = own && (!self.whole || is_here());
        !queued && context.now.since(entry.queued) >= timeout.0.max(Duration::from_millis(1))
    }
}

impl Entry {
    fn new(message: Queued, last: Option<Last>) -> Self {
        let mut entry = Self {
            id: message.id,
            attempt: message.attempt,
            last,
            queued: message.queued,
            not_before: None,
            backend: None,
            image: None,
            needs: Vec::new(),
            wants: Vec::new(),
            seen: HashMap::new(),
            invalid: None,
            told: false,
        };
        match message.task {
            Err(invalid) => entry.invalid = Some(invalid.reason),
            Ok(task) => {
                entry.wants = task.needs.clone();
                entry.needs = task.needs;
                entry.not_before = task.not_before;
                entry.backend = task.backend;
                entry.image = task.image;
            }
        }
        entry
    }

    fn target(&self, seq: u64) -> Target {
        Target {
            task: self.id.clone(),
            seq,
            attempt: self.attempt,
            expected: self.last.map_or(0, |last| last.seq),
        }
    }

    fn forget_met(&mut self, job: &JobName) {
        let seen = &self.seen;
        self.needs.retain(|need| {
            let task = (
                need.job.clone().unwrap_or_else(|| job.clone()),
                need.task.clone(),
            );
            seen.get(&task).and_then(|status| status.meets(need.when)) != Some(true)
        });
    }
}

fn when(when: When) -> &'static str {
    match when {
        When::Succeeded => "to succeed",
        When::Failed => "to fail",
        When::Done => "to be done",
    }
}

/// Whether a message that is not live never will be: a record of its attempt exists, or the reply has
/// seen the message itself, and so every record before it.
fn is_surely_over(message: &Queued, last: Option<Last>, up_to: Option<u64>) -> bool {
    let recorded = last.is_some_and(|last| last.attempt >= message.attempt);
    recorded || up_to.is_some_and(|up_to| up_to >= message.seq)
}

#[cfg(test)]
mod tests;
