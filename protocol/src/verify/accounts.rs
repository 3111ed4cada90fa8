//! I8 of budgets, as records of all jobs come by: an account has counted at least what its runs took.
//!
//! It may have counted more: what a lost agent took is not known, and records may be purged. Kept is one sum for each
//! account.

use std::collections::BTreeMap;

use super::{Finding, Findings, Place};
use crate::budget::{Account, Spent};
use crate::invariants::Invariant;
use crate::names::JobName;
use crate::record::Record;
use crate::time::Time;

const RENEWED: &str = "the account of a budget was removed or begun anew while it was being read";

/// What records say of the accounts that were there before any record was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Accounts(BTreeMap<JobName, Told>);

/// What records say of one account.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    /// When its first task was claimed. Runs that started before are of an account of the same name that was removed.
    since: Time,
    spent: Spent,
}

/// What the records of one job say of accounts.
#[derive(Debug, Default)]
pub struct Charges(BTreeMap<JobName, Spent>);

impl Accounts {
    /// Those that are there. One from which nothing was ever reserved has nothing to count.
    pub fn new(there: impl IntoIterator<Item = (JobName, Account)>) -> Self {
        let told = there.into_iter().filter_map(|(root, account)| {
            let since = account.started?;
            let spent = Spent::default();
            Some((root, Told { since, spent }))
        });
        Self(told.collect())
    }

    /// Adds what a record says to that of its job.
    pub fn record(&self, record: &Record, charges: &mut Charges) {
        let root = record.budget.as_ref();
        let Some((root, told)) = root.and_then(|root| self.0.get_key_value(root)) else {
            return;
        };
        if record.started.is_some_and(|started| started >= told.since) {
            let spent = charges.0.entry(root.clone()).or_default();
            *spent = spent.plus(Spent::of(record));
        }
    }

    /// Takes in what the records of a job say.
    pub fn charge(&mut self, charges: Charges) {
        for (root, spent) in charges.0 {
            if let Some(told) = self.0.get_mut(&root) {
                told.spent = told.spent.plus(spent);
            }
        }
    }

    /// The names of those of which any record told.
    pub fn told(&self) -> impl Iterator<Item = &JobName> {
        let told = self.0.iter();
        let told = told.filter(|(_, told)| told.spent != Spent::default());
        told.map(|(root, _)| root)
    }

    /// Whether an account, read after all records, says less than they do. Runs for which it still reserves are to be
    /// counted: their records are wanted.
    pub fn is_short(&self, root: &JobName, account: &Account) -> bool {
        !account.spent.covers(self.least(root, &[]))
    }

    /// Judges an account as it was read after all records, with its revision. `to_come` holds the records of runs for
    /// which it still reserves.
    pub fn judge(
        &self,
        root: &JobName,
        (account, revision): (Option<&Account>, u64),
        to_come: &[Record],
        findings: &mut Findings,
    ) {
        let told = self.0.get(root);
        let same = |account: &&Account| told.map(|told| told.since) == account.started;
        let Some(account) = account.filter(same) else {
            findings.doubt(Invariant::TrueCounters, RENEWED, root.as_str());
            return;
        };
        let (is, least) = (account.spent, self.least(root, to_come));
        if !is.covers(least) {
            findings.add(Finding {
                invariant: Invariant::TrueCounters,
                job: root.clone(),
                task: None,
                places: vec![Place::Account(revision)],
                text: format!(
                    "the account of its budget counts {is}, but records say {least} at least"
                ),
            });
        }
    }

    fn least(&self, root: &JobName, to_come: &[Record]) -> Spent {
        let told = self.0.get(root).map(|told| told.spent);
        let to_come = to_come.iter().map(Spent::of);
        let to_come = to_come.fold(Spent::default(), Spent::plus);
        told.unwrap_or_default().less(to_come)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::budget::{Budget, Taken, Wants};
    use crate::cost::{Cost, Usd};
    use crate::record::Status;
    use crate::verify::Verdict;

    const BEFORE: Time = Time::from_millis(500);
    const NOW: Time = Time::from_millis(1_000);

    fn root() -> JobName {
        "root".parse().unwrap()
    }

    /// An account of which the run 1 has reserved.
    fn account() -> Account {
        let mut account = Account::new(Budget {
            usd: Some(Usd::from_micros(100)),
            ..Budget::default()
        });
        let wants = Wants {
            job: "j".parse().unwrap(),
            task: "t".parse().unwrap(),
            attempt: 1,
            depth: 0,
            agent: None,
        };
        account.reserve(Uuid::from_u128(1), &wants, NOW).unwrap();
        account
    }

    fn record(started: Time) -> Record {
        let mut record = Record::new("t".parse().unwrap(), Status::Succeeded, 1, NOW);
        (record.run, record.started) = (Some(Uuid::from_u128(1)), Some(started));
        record.budget = Some(root());
        record.cost = Some(Cost {
            usd: Usd::from_micros(40),
            turns: 3,
            ..Cost::default()
        });
        record
    }

    fn accounts(records: &[Record]) -> Accounts {
        let mut accounts = Accounts::new([(root(), account())]);
        for record in records {
            let mut charges = Charges::default();
            accounts.record(record, &mut charges);
            accounts.charge(charges);
        }
        accounts
    }

    fn judged(accounts: &Accounts, account: Option<&Account>, to_come: &[Record]) -> Findings {
        let mut findings = Findings::default();
        accounts.judge(&root(), (account, 7), to_come, &mut findings);
        findings
    }

    fn verdict(accounts: &Accounts, account: Option<&Account>, to_come: &[Record]) -> Verdict {
        judged(accounts, account, to_come).verdict(Invariant::TrueCounters)
    }

    #[test]
    fn an_account_that_lacks_what_a_record_says_is_told() {
        let seen = accounts(&[record(NOW)]);
        assert_eq!(seen.told().collect::<Vec<_>>(), [&root()]);
        let mut counted = account();
        counted.settle(Uuid::from_u128(1), Taken::of_record(&record(NOW)));
        assert!(!seen.is_short(&root(), &counted));
        assert_eq!(verdict(&seen, Some(&counted), &[]), Verdict::Proven);
        let mut forgetful = account();
        forgetful.settle(Uuid::from_u128(1), Taken::Nothing);
        assert!(seen.is_short(&root(), &forgetful));
        let found = judged(&seen, Some(&forgetful), &[]).listed.remove(0);
        assert_eq!((found.job, found.places), (root(), vec![Place::Account(7)]));
        let text = "the account of its budget counts 0.00 USD, tokens 0, turns 0, tasks 0, \
                    but records say 0.00004 USD, tokens 0, turns 3, tasks 1 at least";
        assert_eq!(found.text, text);
    }

    #[test]
    fn a_run_that_is_still_reserved_is_to_be_counted() {
        let seen = accounts(&[record(NOW)]);
        assert!(seen.is_short(&root(), &account()));
        assert_eq!(
            verdict(&seen, Some(&account()), &[record(NOW)]),
            Verdict::Proven
        );
        let twice = accounts(&[record(NOW), record(NOW)]);
        assert_eq!(
            verdict(&twice, Some(&account()), &[record(NOW)]),
            Verdict::Refuted
        );
    }

    #[test]
    fn an_account_that_is_gone_or_another_one_proves_nothing() {
        let seen = accounts(&[record(NOW)]);
        assert_eq!(verdict(&seen, None, &[]), Verdict::NotProven);
        let mut later = account();
        later.started = Some(Time::from_millis(2_000));
        assert_eq!(verdict(&seen, Some(&later), &[]), Verdict::NotProven);
    }

    #[test]
    fn what_is_of_no_account_that_is_there_is_not_counted() {
        let mut other = record(NOW);
        other.budget = Some("other".parse().unwrap());
        let mut none = record(NOW);
        none.budget = None;
        let seen = accounts(&[record(BEFORE), other, none]);
        assert_eq!(seen.told().count(), 0);
        let unused = Account::new(Budget::default());
        assert_eq!(Accounts::new([(root(), unused)]), Accounts::default());
    }
}
