//! The backlog: what a manager knows of one job's queue, so that a pick does not read it anew.
//!
//! Pure. Messages come in by [`Backlog::admit`], records by [`Backlog::learn`]; [`Backlog::pick`] says
//! what may run and what is decided without running, [`Backlog::leftovers`] what is left over. Knowing too little
//! is harmless: the claim's revision and the record's expectation decide.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use air_nats::queue::Queued;
use air_nats::records::Lasts;
use air_protocol::approval::Rules;
use air_protocol::budget::{Leash, Limits};
use air_protocol::lease::Target;
use air_protocol::names::{JobName, TaskId};
use air_protocol::record::{Last, Record, Status, is_live};
use air_protocol::task::{Need, Resources, Work};
use air_protocol::time::Time;

mod pick;

pub use pick::{Charge, Context, Pick, Ready};

/// Time between two looks of one manager at the age of a job's records.
const EXPIRY_EVERY: Duration = Duration::from_secs(60);
/// Time after which what is remembered of a queue is read anew: what no wake-up told is found then.
const ANEW_EVERY: Duration = Duration::from_secs(60);

/// A task of a job.
pub type TaskRef = (JobName, TaskId);

/// What is known of one job's queue.
#[derive(Debug, Clone)]
pub struct Backlog {
    job: JobName,
    entries: BTreeMap<u64, Entry>,
    /// Messages that will never be live.
    leftovers: BTreeMap<u64, Leftover>,
    /// Messages up to this sequence are known.
    cursor: u64,
    /// Records of the job up to this sequence are known.
    known_to: u64,
    /// Records that the key had counted at the last look.
    accounted: u64,
    /// Whether the end of the queue was seen.
    whole: bool,
    /// When the queue was begun to be read.
    born: Option<Time>,
    /// When records were last looked at for their age.
    expiry: Option<Time>,
    /// Messages of which it was told that their task waits.
    told: BTreeSet<u64>,
    /// Needed tasks of other jobs that were searched for in their queues: when, and whether they were there.
    searched: HashMap<TaskRef, (Time, bool)>,
    /// Rules by which it was judged who must be approved.
    rules: Rules,
}

/// A message that will never be live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    id: TaskId,
    attempt: u32,
    /// Since when that is known.
    since: Time,
}

impl Leftover {
    /// Whether this is the message.
    pub fn is(&self, message: &Queued) -> bool {
        self.id == message.id && self.attempt == message.attempt
    }

    /// Whether it is among the messages that were read, at its sequence: only then it may be deleted.
    pub fn is_among(&self, seq: u64, read: &[Queued]) -> bool {
        read.iter()
            .any(|message| message.seq == seq && self.is(message))
    }
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
    /// The account that pays for it, and how deep it stands.
    leash: Leash,
    /// What an agent's task asks for; none for any other task.
    agent: Option<Limits>,
    /// It only queues the rest of a family, which nobody pays for.
    fanout: bool,
    resources: Option<Resources>,
    /// Needs that are not met yet.
    needs: Vec<Need>,
    /// All needs: their records must stay until the task has run.
    wants: Vec<Need>,
    /// What is known of tasks of other jobs, and of the own one, that are over or open.
    seen: HashMap<TaskRef, Status>,
    /// Why a person must approve the task.
    approval: Option<String>,
    invalid: Option<String>,
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
            born: None,
            expiry: None,
            told: BTreeSet::new(),
            searched: HashMap::new(),
            rules: Rules::default(),
        }
    }

    /// These are the rules by which tasks wait for a person: what was judged by others is forgotten.
    pub fn heed(&mut self, rules: Rules) {
        if self.rules != rules {
            *self = Self {
                rules,
                expiry: self.expiry,
                told: std::mem::take(&mut self.told),
                ..Self::new(self.job.clone())
            };
        }
    }

    /// Another look begins: says from which record on the job's history is to be read. What is known
    /// stays known for a minute, unless records that it would have to learn are purged, or the key has counted
    /// fewer than before: then the job was removed, and what is queued now belongs to a new one.
    pub fn begin(&mut self, accounted: u64, purged_to: u64, now: Time) -> u64 {
        let is_old = self.born.is_none_or(|born| now.since(born) >= ANEW_EVERY);
        let is_other = self.known_to < purged_to || accounted < self.accounted;
        if self.is_empty() || is_other || is_old {
            *self = Self {
                known_to: accounted,
                born: Some(now),
                expiry: self.expiry,
                told: std::mem::take(&mut self.told),
                rules: std::mem::take(&mut self.rules),
                ..Self::new(self.job.clone())
            };
        }
        self.accounted = accounted;
        // Who was searched for in vain may have been published since.
        self.searched.retain(|_, (_, queued)| *queued);
        self.known_to.min(accounted)
    }

    /// Records of the job up to this sequence are known.
    pub fn known_to(&self) -> u64 {
        self.known_to
    }

    /// Messages that are remembered.
    pub fn len(&self) -> usize {
        self.entries.len() + self.leftovers.len()
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

    /// More records whose time is over may be left: the next look is not to wait for its minute.
    pub fn expire_again(&mut self) {
        self.expiry = None;
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

    /// Messages that are left over, and known to be for `age` at least.
    pub fn leftovers(&self, now: Time, age: Duration) -> BTreeMap<u64, Leftover> {
        let due = |left: &Leftover| now.since(left.since) >= age;
        self.leftovers
            .iter()
            .take_while(|(_, left)| due(left))
            .map(|(seq, left)| (*seq, left.clone()))
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
            .filter(|need| !self.is_own(need))
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
            let before = lasts.records.get(&(self.job.clone(), message.id.clone()));
            let last = before.map(|(seq, record)| record.last(*seq));
            if !is_live(message.attempt, last) {
                // A reply that has not seen the message may not have seen its latest record.
                if lasts.up_to.is_some_and(|up_to| up_to >= message.seq) {
                    self.leave(message.seq, message.id, message.attempt, now);
                }
                continue;
            }
            let task = message.task.as_ref().ok();
            let record = before.map(|(_, record)| record);
            let approval = task.and_then(|task| self.rules.needs(task, record));
            let seq = message.seq;
            let mut entry = Entry::new(message, last);
            entry.approval = approval;
            self.entries.insert(seq, entry);
        }
        self.whole = pending == 0;
        self.learn_lasts(lasts);
    }

    fn leave(&mut self, seq: u64, id: TaskId, attempt: u32, since: Time) {
        let leftover = Leftover { id, attempt, since };
        self.leftovers.entry(seq).or_insert(leftover);
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
            if let Some(entry) = self.entries.remove(&at) {
                self.leave(at, entry.id, entry.attempt, now);
            }
        }
        if let Some(consumed) = record.seq
            && consumed <= self.cursor
            && !self.entries.contains_key(&consumed)
        {
            self.leave(consumed, record.task.clone(), record.attempt, now);
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
        let entries = &self.entries;
        self.told
            .retain(|seq| entries.contains_key(seq) || *seq > self.cursor);
        let mut newly = Vec::new();
        for (seq, entry) in entries.iter().filter(|(_, entry)| !entry.needs.is_empty()) {
            if self.told.insert(*seq) {
                let needs: Vec<_> = entry.needs.iter().map(Need::to_string).collect();
                newly.push((entry.id.clone(), entry.attempt, needs.join(", ")));
            }
        }
        newly
    }

    /// The queues of other jobs were searched for tasks; `queued` are those that were there.
    pub fn searched(&mut self, tasks: Vec<TaskRef>, queued: &BTreeSet<TaskRef>, now: Time) {
        let found = |task: TaskRef| {
            let is_queued = queued.contains(&task);
            (task, (now, is_queued))
        };
        self.searched.extend(tasks.into_iter().map(found));
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
            leash: message.leash,
            agent: None,
            fanout: false,
            resources: None,
            needs: Vec::new(),
            wants: Vec::new(),
            seen: HashMap::new(),
            approval: None,
            invalid: None,
        };
        match message.task {
            Err(invalid) => entry.invalid = Some(invalid.reason),
            Ok(task) => {
                entry.wants = task.needs.clone();
                entry.needs = task.needs;
                entry.not_before = task.not_before;
                entry.backend = task.backend;
                entry.image = task.image;
                entry.fanout = matches!(task.work, Work::Fanout(_));
                if let Work::Claude(claude) = task.work {
                    entry.agent = Some(Limits {
                        usd: claude.max_budget_usd,
                        turns: claude.max_turns.map(u64::from),
                    });
                }
                entry.resources = task.resources;
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

#[cfg(test)]
mod tests;
