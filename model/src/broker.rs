//! The broker, as small as a stream can be: sequences, expectations, batches, deletes, schedules.
//!
//! Pure. It knows nothing of jobs; [`crate::store`] does. `tests/tests/broker_model.rs` runs one list
//! of scenarios on it and on a real server, and both must agree.

use std::sync::Arc;

use air_protocol::time::Time;

/// A message as the stream holds it.
#[derive(Debug)]
pub struct Stored<P> {
    /// Its sequence.
    pub seq: u64,
    /// Its subject.
    pub subject: Arc<str>,
    /// When it was stored.
    pub time: Time,
    /// What it says.
    pub payload: Arc<P>,
    /// What makes it a schedule, if it is one.
    pub schedule: Option<Schedule>,
}

impl<P> Clone for Stored<P> {
    fn clone(&self) -> Self {
        Self {
            seq: self.seq,
            subject: self.subject.clone(),
            time: self.time,
            payload: self.payload.clone(),
            schedule: self.schedule.clone(),
        }
    }
}

/// When a message is brought back, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The time.
    pub at: Time,
    /// The subject on which it is published then.
    pub target: Arc<str>,
}

/// A message to be stored.
#[derive(Debug)]
pub struct Publish<P> {
    /// Its subject.
    pub subject: Arc<str>,
    /// What it says.
    pub payload: Arc<P>,
    /// The sequence that must be the last of the subject, 0 for none; unchecked without.
    pub expect: Option<u64>,
    /// The subject of which that is expected, where it is another one.
    pub expect_of: Option<Arc<str>>,
    /// `Nats-Msg-Id`.
    pub id: Option<String>,
    /// Makes it a schedule.
    pub schedule: Option<Schedule>,
    /// A subject whose schedule is taken away with it.
    pub unschedule: Option<Arc<str>>,
}

impl<P> Clone for Publish<P> {
    fn clone(&self) -> Self {
        Self {
            subject: self.subject.clone(),
            payload: self.payload.clone(),
            expect: self.expect,
            expect_of: self.expect_of.clone(),
            id: self.id.clone(),
            schedule: self.schedule.clone(),
            unschedule: self.unschedule.clone(),
        }
    }
}

impl<P> Publish<P> {
    /// A message without anything special.
    pub fn new(subject: impl Into<Arc<str>>, payload: impl Into<Arc<P>>) -> Self {
        Self {
            subject: subject.into(),
            payload: payload.into(),
            expect: None,
            expect_of: None,
            id: None,
            schedule: None,
            unschedule: None,
        }
    }

    /// Expects this sequence to be the last of the subject.
    #[must_use]
    pub fn expecting(mut self, seq: u64) -> Self {
        self.expect = Some(seq);
        self
    }
}

/// Why nothing was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Another message is the last of its subject (10071).
    WrongLast,
    /// A batch holds a message id that was seen before, or one twice (10201).
    RepeatedId,
}

/// A stream, or a bucket.
#[derive(Debug)]
pub struct Stream<P> {
    entries: Vec<Stored<P>>,
    last: u64,
    /// Whether only the last message of each subject is kept, as in a bucket without history.
    last_only: bool,
    ids: Vec<(String, u64)>,
}

impl<P> Clone for Stream<P> {
    fn clone(&self) -> Self {
        Self {
            entries: self.entries.clone(),
            last: self.last,
            last_only: self.last_only,
            ids: self.ids.clone(),
        }
    }
}

impl<P> Stream<P> {
    /// An empty stream.
    pub fn new(last_only: bool) -> Self {
        Self {
            entries: Vec::new(),
            last: 0,
            last_only,
            ids: Vec::new(),
        }
    }

    /// The last sequence ever given.
    pub fn last_seq(&self) -> u64 {
        self.last
    }

    /// Every message, in order.
    pub fn all(&self) -> &[Stored<P>] {
        &self.entries
    }

    /// The messages that match, from `from` on.
    pub fn matching<'a>(
        &'a self,
        filter: &'a str,
        from: u64,
    ) -> impl DoubleEndedIterator<Item = &'a Stored<P>> + 'a {
        let entries = self.entries.iter();
        entries.filter(move |one| one.seq >= from && matches(filter, &one.subject))
    }

    /// The last message of a subject.
    pub fn last_of(&self, subject: &str) -> Option<&Stored<P>> {
        self.entries
            .iter()
            .rev()
            .find(|one| &*one.subject == subject)
    }

    /// The message at a sequence.
    pub fn at(&self, seq: u64) -> Option<&Stored<P>> {
        self.entries.iter().find(|one| one.seq == seq)
    }

    /// Stores one message. A repeated id stores nothing, and gives the sequence that it had.
    ///
    /// # Errors
    /// [`Refused`]: nothing was stored.
    pub fn publish(&mut self, message: Publish<P>, now: Time) -> Result<u64, Refused> {
        if let Some(seq) = self.seen(message.id.as_deref()) {
            return Ok(seq);
        }
        self.check(&message)?;
        Ok(self.store(message, now))
    }

    /// Stores all of the messages or none; gives the sequence of the first.
    ///
    /// # Errors
    /// [`Refused`]: nothing was stored.
    pub fn batch(&mut self, messages: Vec<Publish<P>>, now: Time) -> Result<u64, Refused> {
        for (index, message) in messages.iter().enumerate() {
            let before = &messages[..index];
            let repeated = |id: &String| before.iter().any(|one| one.id.as_ref() == Some(id));
            if self.seen(message.id.as_deref()).is_some()
                || message.id.as_ref().is_some_and(repeated)
            {
                return Err(Refused::RepeatedId);
            }
            self.check(message)?;
        }
        let first = self.last + 1;
        for message in messages {
            self.store(message, now);
        }
        Ok(first)
    }

    fn seen(&self, id: Option<&str>) -> Option<u64> {
        let known = self
            .ids
            .iter()
            .find(|(known, _)| Some(known.as_str()) == id);
        known.map(|(_, seq)| *seq)
    }

    fn check(&self, message: &Publish<P>) -> Result<(), Refused> {
        let subject = message.expect_of.as_ref().unwrap_or(&message.subject);
        let last = || self.last_of(subject).map_or(0, |one| one.seq);
        match message.expect {
            Some(expected) if expected != last() => Err(Refused::WrongLast),
            _ => Ok(()),
        }
    }

    fn store(&mut self, message: Publish<P>, now: Time) -> u64 {
        self.last += 1;
        let seq = self.last;
        let gone = |one: &Stored<P>| {
            let same = one.subject == message.subject;
            // A schedule's subject holds one message: publishing again replaces it.
            let replaced = same && (self.last_only || message.schedule.is_some());
            replaced || Some(&one.subject) == message.unschedule.as_ref()
        };
        self.entries.retain(|one| !gone(one));
        self.ids.extend(message.id.map(|id| (id, seq)));
        self.entries.push(Stored {
            seq,
            subject: message.subject,
            time: now,
            payload: message.payload,
            schedule: message.schedule,
        });
        seq
    }

    /// Deletes one message; whether it was there.
    pub fn delete(&mut self, seq: u64) -> bool {
        let before = self.entries.len();
        self.entries.retain(|one| one.seq != seq);
        self.entries.len() < before
    }

    /// Deletes what matches, up to and with `up_to`; how many.
    pub fn purge(&mut self, filter: &str, up_to: Option<u64>) -> usize {
        let before = self.entries.len();
        let goes = |one: &Stored<P>| {
            up_to.is_none_or(|up_to| one.seq <= up_to) && matches(filter, &one.subject)
        };
        self.entries.retain(|one| !goes(one));
        before - self.entries.len()
    }

    /// Brings back the message of a schedule, whatever its time; the sequence that it gets.
    pub fn fire(&mut self, seq: u64, now: Time) -> Option<u64> {
        let fired = self.at(seq)?.clone();
        let target = fired.schedule?.target;
        self.delete(seq);
        let message = Publish {
            subject: target,
            payload: fired.payload,
            expect: None,
            expect_of: None,
            id: None,
            schedule: None,
            unschedule: None,
        };
        Some(self.store(message, now))
    }

    /// The schedules that are pending, and when they are due.
    pub fn schedules(&self) -> impl Iterator<Item = (u64, Time)> + '_ {
        let entries = self.entries.iter();
        entries.filter_map(|one| Some((one.seq, one.schedule.as_ref()?.at)))
    }

    /// The stream as a replica sees it that lags behind: nothing after `up_to` has come.
    #[must_use]
    pub fn up_to(&self, up_to: u64) -> Self {
        let mut old = self.clone();
        old.entries.retain(|one| one.seq <= up_to);
        old.last = old.last.min(up_to);
        old
    }

    /// Lets the sequences begin later, so that they differ from other numbers.
    #[must_use]
    pub fn beginning_at(mut self, last: u64) -> Self {
        self.last = last;
        self
    }
}

/// Whether a subject matches a filter, with `*` for one token and `>` for the rest.
pub fn matches(filter: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in filter.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}
