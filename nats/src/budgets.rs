//! Accounts of budgets, and keys of the service whose limit is reached, in the bucket `air-budgets`.
//!
//! An account is written by compare-and-swap only, and changed by the pure functions of
//! [`air_protocol::budget`]. The entry of a limited key goes by itself when its time is over.

use std::time::Duration;

use air_protocol::budget::{Account, KeyLimit, Limits, Reservation, Taken};
use air_protocol::codec;
use air_protocol::names::JobName;
use air_protocol::spec::Wire;
use air_protocol::time::Time;
use uuid::Uuid;

use crate::bucket::{self, Entry, Swap};
use crate::publish::{Outgoing, Written};
use crate::request::Backoff;
use crate::{Error, Nats};

/// What the name of a limited key's entry begins with; no job's name has a full stop.
const LIMIT: &str = "_limit.";
/// Time for which the entry of a limited key stays after its limit is over.
const LIMIT_STAYS: Duration = Duration::from_secs(60);
/// Entries that one reply brings.
const PAGE: usize = 256;

/// A change in the bucket.
#[derive(Debug, Clone, PartialEq)]
pub enum Changed {
    /// An account; none where it was deleted.
    Account(JobName, Option<Box<Account>>),
    /// The limit of a key of the service, by its id.
    Limit(String, KeyLimit),
}

impl Nats {
    /// An account and its revision (0: none), from the leader. One that cannot be read is an error: it is never
    /// written over.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should, or the key holds no account.
    pub async fn account(&self, root: &JobName) -> Result<(Option<Account>, u64), Error> {
        let bucket = self.names.budgets_bucket();
        let Some(entry) = self.entry(&bucket, root.as_str()).await? else {
            return Ok((None, 0));
        };
        let account = entry.value.as_ref().map(|value| Account::decode(value));
        match account.transpose() {
            Ok(account) => Ok((account, entry.revision)),
            Err(error) => Err(Error::Answer(format!(
                "the key {root} of {bucket} holds no account: {error}"
            ))),
        }
    }

    /// Changes an account by compare-and-swap, again and again until it is written: `change` is given what there
    /// is, and gives what there should be (none: nothing is to be written), and what it found.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should, or the key holds no account.
    pub async fn change_account<T>(
        &self,
        root: &JobName,
        mut change: impl FnMut(Option<Account>) -> (Option<Account>, T),
    ) -> Result<T, Error> {
        let mut backoff = Backoff::new();
        loop {
            let (account, revision) = self.account(root).await?;
            let (next, found) = change(account);
            let Some(next) = next else { return Ok(found) };
            if let Swap::Won(_) = self.write_account(root, &next, revision).await? {
                return Ok(found);
            }
            backoff.wait().await;
        }
    }

    /// Writes an account if its key is at the revision `expected`.
    ///
    /// # Errors
    /// [`Error`] when NATS refuses the write for good.
    pub async fn write_account(
        &self,
        root: &JobName,
        account: &Account,
        expected: u64,
    ) -> Result<Swap, Error> {
        let value = codec::encode(Wire::Json, account);
        let bucket = self.names.budgets_bucket();
        self.swap(&bucket, root.as_str(), value, expected).await
    }

    /// A runner begins to spend what is reserved for it. None where nothing is: then it must not begin. It is a
    /// write, so that nobody who saw the run without a lease can take the reservation away afterwards.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn begin_spending(
        &self,
        root: &JobName,
        runner: Uuid,
    ) -> Result<Option<Limits>, Error> {
        self.change_account(root, |account| {
            let Some(mut account) = account else {
                return (None, None);
            };
            match account.begin(runner) {
                None => (None, None),
                Some((limits, changed)) => (changed.then_some(account), Some(limits)),
            }
        })
        .await
    }

    /// A run has ended: gives back what it did not take, and wakes those that wait for it. Whether anything was
    /// reserved; it may be repeated.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn settle_account(
        &self,
        root: &JobName,
        runner: Uuid,
        taken: Taken,
    ) -> Result<bool, Error> {
        let settle = |account: &mut Account| account.settle(runner, taken);
        self.settle_by(root, settle).await
    }

    /// The same, only where what is reserved is still what was judged: a runner that has begun since is left alone.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn settle_if(
        &self,
        root: &JobName,
        runner: Uuid,
        judged: &Reservation,
        taken: Taken,
    ) -> Result<bool, Error> {
        let settle = |account: &mut Account| account.settle_if(runner, judged, taken);
        self.settle_by(root, settle).await
    }

    async fn settle_by(
        &self,
        root: &JobName,
        mut settle: impl FnMut(&mut Account) -> bool,
    ) -> Result<bool, Error> {
        let settled = self
            .change_account(root, |account| {
                let Some(mut account) = account else {
                    return (None, false);
                };
                let settled = settle(&mut account);
                (settled.then_some(account), settled)
            })
            .await?;
        if settled {
            self.signal(root).await;
        }
        Ok(settled)
    }

    /// Removes every trace of an account; of what its runs take from then on nobody keeps account.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn erase_account(&self, root: &JobName) -> Result<(), Error> {
        let (stream, key) = self.budget_key(root.as_str());
        self.purge(&stream, &key, None).await
    }

    /// What was written into the bucket after the revision `seen`, and the revision up to which that is all.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn budgets_after(&self, seen: u64) -> Result<(Vec<Changed>, u64), Error> {
        let bucket = self.names.budgets_bucket();
        let (stream, subject) = self.budget_key(">");
        let (mut all, mut from) = (Vec::new(), seen + 1);
        loop {
            let batch = self.get_next(&stream, &subject, from, PAGE).await?;
            for stored in batch.messages {
                from = stored.seq + 1;
                all.extend(changed(Entry::from_stored(&bucket, stored)));
            }
            if batch.pending == 0 {
                return Ok((all, from - 1));
            }
        }
    }

    /// All accounts, in the order in which they were written.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn accounts(&self) -> Result<Vec<(JobName, Account)>, Error> {
        let (changes, _) = self.budgets_after(0).await?;
        let account = |changed| match changed {
            Changed::Account(root, account) => Some((root, *account?)),
            Changed::Limit(..) => None,
        };
        Ok(changes.into_iter().filter_map(account).collect())
    }

    /// Until when a key of the service is limited, by its id; none where nothing is known.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn key_limit(&self, key: &str) -> Result<Option<KeyLimit>, Error> {
        Ok(self.limit_entry(key).await?.0)
    }

    async fn limit_entry(&self, key: &str) -> Result<(Option<KeyLimit>, u64), Error> {
        let bucket = self.names.budgets_bucket();
        let entry = self.entry(&bucket, &format!("{LIMIT}{key}")).await?;
        let revision = entry.as_ref().map_or(0, |entry| entry.revision);
        let value = entry.and_then(|entry| entry.value);
        Ok((
            value.and_then(|value| KeyLimit::decode(&value).ok()),
            revision,
        ))
    }

    /// Says that a key of the service is limited. The later one of two limits stays.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn limit_key(&self, key: &str, until: Time, now: Time) -> Result<(), Error> {
        let (_, subject) = self.budget_key(&format!("{LIMIT}{key}"));
        loop {
            let (before, revision) = self.limit_entry(key).await?;
            if until <= now || before.is_some_and(|before| before.until >= until) {
                return Ok(());
            }
            let value = codec::encode(Wire::Json, &KeyLimit::new(until, now));
            let message = Outgoing::new(subject.clone(), Wire::Json, value)
                .expecting(revision)
                .living(until.since(now) + LIMIT_STAYS);
            if let Written::At(_) = self.store_expecting(&message).await? {
                return Ok(());
            }
        }
    }

    fn budget_key(&self, key: &str) -> (String, String) {
        let bucket = self.names.budgets_bucket();
        (bucket::stream(&bucket), bucket::subject(&bucket, key))
    }
}

/// What an entry says; none where it is garbage.
fn changed(entry: Entry) -> Option<Changed> {
    if let Some(key) = entry.key.strip_prefix(LIMIT) {
        let limit = KeyLimit::decode(entry.value.as_ref()?).ok()?;
        return Some(Changed::Limit(key.to_owned(), limit));
    }
    let root = entry.key.parse().ok()?;
    let account = entry.value.as_ref().map(|value| Account::decode(value));
    match account.transpose() {
        Ok(account) => Some(Changed::Account(root, account.map(Box::new))),
        Err(error) => {
            tracing::error!(key = entry.key, %error, "an account cannot be read");
            None
        }
    }
}
