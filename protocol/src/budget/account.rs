//! The account: what a job, with all that descends from it, has spent, and what is reserved for those that run.
//!
//! Pure: values in, values out. Whoever changes an account writes it by compare-and-swap at the revision that it read.
//! Every change can be repeated: what is reserved already, or settled already, changes nothing.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Budget;
use crate::VERSION;
use crate::codec::{self, DecodeError};
use crate::cost::{Cost, Usd};
use crate::limits::{
    BUDGET_SHARE, BUDGET_SHARE_TOKENS_MIN, BUDGET_SHARE_TURNS_MIN, BUDGET_SHARE_USD_MIN_MICROS,
    DEPTH_MAX, RESERVATIONS_MAX,
};
use crate::names::{JobName, TaskId};
use crate::record::Record;
use crate::task::Work;
use crate::time::Time;

/// What an account holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Account {
    /// Version of the account.
    pub v: u8,
    /// The budget of the root job's spec, when it was last looked at.
    pub limits: Budget,
    /// What was granted beyond it (`airx resume --budget-usd`).
    #[serde(default, skip_serializing_if = "Budget::is_nothing")]
    pub granted: Budget,
    /// What ended runs took.
    #[serde(default)]
    pub spent: Spent,
    /// What is reserved for those that run, by runner.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reserved: BTreeMap<Uuid, Reservation>,
    /// When the first task was claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// Why a task could not be claimed; none once more was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrun: Option<String>,
}

/// What runs took that have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Spent {
    /// Money, in US dollars.
    pub usd: Usd,
    /// Tokens of every kind.
    pub tokens: u64,
    /// Turns.
    pub turns: u64,
    /// Tasks that are over.
    pub tasks: u64,
}

impl Spent {
    fn by(cost: Cost, over: bool) -> Self {
        Self {
            usd: cost.usd,
            tokens: cost.tokens(),
            turns: cost.turns,
            tasks: u64::from(over),
        }
    }

    /// What the record of a run proves to be spent. Pages of a fan-out are of no account, and what a lost agent took
    /// is not known.
    pub fn of(record: &Record) -> Self {
        if record.is_fanout() || record.run.is_none() || record.started.is_none() {
            return Self::default();
        }
        match Taken::of_record(record) {
            Taken::Known { cost, over } => Self::by(cost, over),
            Taken::Nothing | Taken::Whole { .. } => Self::default(),
        }
    }

    /// The sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            usd: self.usd.plus(other.usd),
            tokens: self.tokens.saturating_add(other.tokens),
            turns: self.turns.saturating_add(other.turns),
            tasks: self.tasks.saturating_add(other.tasks),
        }
    }

    /// What is left without `other`; of nothing less than nothing.
    #[must_use]
    pub fn less(self, other: Self) -> Self {
        Self {
            usd: self.usd.minus(other.usd),
            tokens: self.tokens.saturating_sub(other.tokens),
            turns: self.turns.saturating_sub(other.turns),
            tasks: self.tasks.saturating_sub(other.tasks),
        }
    }

    /// Whether it is at least `least`, of every kind.
    pub fn covers(self, least: Self) -> bool {
        least.less(self) == Self::default()
    }
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            usd,
            tokens,
            turns,
            tasks,
        } = self;
        write!(f, "{usd}, tokens {tokens}, turns {turns}, tasks {tasks}")
    }
}

/// What is reserved for one run. What is absent is not limited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reservation {
    /// The job that was to be claimed.
    pub job: JobName,
    /// The task.
    pub task: TaskId,
    /// The attempt.
    pub attempt: u32,
    /// Whether an agent works on it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub agent: bool,
    /// Money, in US dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd: Option<Usd>,
    /// Tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns: Option<u64>,
    /// When it was made.
    pub since: Time,
    /// Whether the runner has begun: from then on something may be spent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub begun: bool,
}

/// What a run may take at most; what is absent is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Money, in US dollars.
    pub usd: Option<Usd>,
    /// Turns.
    pub turns: Option<u64>,
}

/// For whom something is to be reserved, and how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wants {
    /// The job that is to be claimed.
    pub job: JobName,
    /// The task.
    pub task: TaskId,
    /// The attempt.
    pub attempt: u32,
    /// The task's depth.
    pub depth: u32,
    /// What an agent's task asks for; none for any other task.
    pub agent: Option<Limits>,
}

/// Why nothing was reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Never: the task stands too deep below its root.
    TooDeep(String),
    /// Not before runs that go on have ended: they hold what is left.
    Busy,
    /// Not before more is granted.
    Short(String),
}

/// What a run took, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Nothing was begun.
    Nothing,
    /// The run has ended; `over` if its task is over with it.
    Known {
        /// What it cost.
        cost: Cost,
        /// Whether the task is over.
        over: bool,
    },
    /// It is not known what it cost: all that was reserved counts as spent, or more where more is known.
    Whole {
        /// What it cost at least.
        cost: Cost,
        /// Whether the task is over.
        over: bool,
    },
}

impl Taken {
    /// What the record of a run says. An agent whose CLI was ended before it told what it cost, or whose runner was
    /// lost, took all that it might; one that had no answer yet took nothing.
    pub fn of_record(record: &Record) -> Self {
        let over = record.status.is_final();
        let cost = record.cost.unwrap_or_default();
        let task = record.spec.as_ref();
        let agent = task.is_some_and(|task| matches!(task.work, Work::Claude(_)));
        let told =
            record.exit.is_some() || cost.usd > Usd::ZERO || (cost.is_nothing() && !record.lost);
        if agent && record.started.is_some() && !told {
            Self::Whole { cost, over }
        } else {
            Self::Known { cost, over }
        }
    }
}

/// One kind of what an account limits: what it may be in all, what is spent and reserved of it.
#[derive(Debug, Clone, Copy)]
struct Part {
    total: Option<u64>,
    spent: u64,
    reserved: u64,
}

impl Part {
    /// What nobody has taken yet; none without a limit.
    fn left(self) -> Option<u64> {
        Some(self.unspent()?.saturating_sub(self.reserved))
    }

    /// What is left once all that is reserved came back unused.
    fn unspent(self) -> Option<u64> {
        Some(self.total?.saturating_sub(self.spent))
    }

    /// What is to be reserved for one that asks for `own`, or else gets a share of what is left, at least `min`.
    fn take(self, own: Option<u64>, min: u64) -> Result<Option<u64>, Lack> {
        let (Some(left), Some(unspent)) = (self.left(), self.unspent()) else {
            return Ok(own);
        };
        let wanted = own.unwrap_or_else(|| (left / BUDGET_SHARE).max(min.min(left)).max(1));
        if wanted <= left {
            Ok(Some(wanted))
        } else if wanted <= unspent {
            Err(Lack::Busy)
        } else {
            Err(Lack::Short { wanted, unspent })
        }
    }
}

enum Lack {
    Busy,
    Short { wanted: u64, unspent: u64 },
}

impl Lack {
    fn refusal(self, show: impl Fn(u64) -> String) -> Refusal {
        match self {
            Self::Busy => Refusal::Busy,
            Self::Short { wanted, unspent } => Refusal::Short(format!(
                "the next task wants {}, and {} are left",
                show(wanted),
                show(unspent)
            )),
        }
    }
}

impl Account {
    /// An account from which nothing was taken.
    pub fn new(limits: Budget) -> Self {
        Self {
            v: VERSION,
            limits,
            granted: Budget::default(),
            spent: Spent::default(),
            reserved: BTreeMap::new(),
            started: None,
            overrun: None,
        }
    }

    /// Reads an account.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let value = codec::value(None, bytes)?;
        codec::check_version(&value)?;
        codec::typed(value)
    }

    /// What may be taken in all: the budget of the spec, and what was granted beyond. A grant of what has
    /// no limit means nothing.
    pub fn total(&self) -> Budget {
        let total = self.limits.plus(&self.granted);
        Budget {
            usd: self.limits.usd.and(total.usd),
            tokens: self.limits.tokens.and(total.tokens),
            turns: self.limits.turns.and(total.turns),
            tasks: self.limits.tasks.and(total.tasks),
            depth: total.depth,
            wall: self.limits.wall.and(total.wall),
        }
    }

    /// What is reserved in all. Each run counts as one task.
    pub fn reserved_sum(&self) -> Spent {
        let mut sum = Spent::default();
        for one in self.reserved.values() {
            sum.usd = sum.usd.plus(one.usd.unwrap_or_default());
            sum.tokens = sum.tokens.saturating_add(one.tokens.unwrap_or(0));
            sum.turns = sum.turns.saturating_add(one.turns.unwrap_or(0));
            sum.tasks = sum.tasks.saturating_add(1);
        }
        sum
    }

    /// Reserves for a run that is about to be claimed; whether anything changed.
    ///
    /// # Errors
    /// [`Refusal`] when there is not enough, and then nothing changed.
    pub fn reserve(&mut self, runner: Uuid, wants: &Wants, now: Time) -> Result<bool, Refusal> {
        if self.reserved.contains_key(&runner) {
            return Ok(false);
        }
        let reservation = self.reservation(wants, now)?;
        self.reserved.insert(runner, reservation);
        self.started = self.started.or(Some(now));
        Ok(true)
    }

    fn reservation(&self, wants: &Wants, now: Time) -> Result<Reservation, Refusal> {
        let (total, spent, sum) = (self.total(), self.spent, self.reserved_sum());
        let deepest = total.depth.unwrap_or(DEPTH_MAX).min(DEPTH_MAX);
        if wants.depth > deepest {
            return Err(Refusal::TooDeep(format!(
                "it stands {} generations below the tasks of its budget's job, which allows {deepest}",
                wants.depth
            )));
        }
        if let (Some(started), Some(wall)) = (self.started, total.wall)
            && now >= started.after(wall.0)
        {
            return Err(Refusal::Short(format!("its time of {wall} is over")));
        }
        let part = |total, spent, reserved| Part {
            total,
            spent,
            reserved,
        };
        let tasks = part(total.tasks, spent.tasks, sum.tasks).take(Some(1), 1);
        tasks.map_err(|lack| lack.refusal(|tasks| format!("{tasks} of its tasks")))?;
        if self.reserved.len() >= RESERVATIONS_MAX {
            return Err(Refusal::Busy);
        }
        let mut reservation = Reservation {
            job: wants.job.clone(),
            task: wants.task.clone(),
            attempt: wants.attempt,
            agent: wants.agent.is_some(),
            usd: None,
            tokens: None,
            turns: None,
            since: now,
            begun: false,
        };
        let Some(own) = wants.agent else {
            return Ok(reservation);
        };
        let usd = part(
            total.usd.map(Usd::micros),
            spent.usd.micros(),
            sum.usd.micros(),
        )
        .take(own.usd.map(Usd::micros), BUDGET_SHARE_USD_MIN_MICROS)
        .map_err(|lack| lack.refusal(|micros| Usd::from_micros(micros).to_string()))?;
        reservation.usd = usd.map(Usd::from_micros);
        reservation.turns = part(total.turns, spent.turns, sum.turns)
            .take(own.turns, BUDGET_SHARE_TURNS_MIN)
            .map_err(|lack| lack.refusal(|turns| format!("{turns} turns")))?;
        reservation.tokens = part(total.tokens, spent.tokens, sum.tokens)
            .take(None, BUDGET_SHARE_TOKENS_MIN)
            .map_err(|lack| lack.refusal(|tokens| format!("{tokens} tokens")))?;
        Ok(reservation)
    }

    /// The runner begins: from now on it may spend what is reserved for it. None when nothing is: then it must
    /// not begin. Says whether anything changed.
    pub fn begin(&mut self, runner: Uuid) -> Option<(Limits, bool)> {
        let one = self.reserved.get_mut(&runner)?;
        let changed = !std::mem::replace(&mut one.begun, true);
        Some((one.limits(), changed))
    }

    /// A run has ended: gives back what it did not take. Whether anything changed; a run is settled once.
    pub fn settle(&mut self, runner: Uuid, taken: Taken) -> bool {
        let Some(one) = self.reserved.remove(&runner) else {
            return false;
        };
        let took = match taken {
            Taken::Nothing => return true,
            Taken::Known { cost, over } => Spent::by(cost, over),
            // A run that has not begun took nothing but what it says.
            Taken::Whole { cost, over } if !one.begun => Spent::by(cost, over),
            Taken::Whole { cost, over } => {
                let least = Spent::by(cost, over);
                Spent {
                    usd: least.usd.max(one.usd.unwrap_or_default()),
                    tokens: least.tokens.max(one.tokens.unwrap_or(0)),
                    turns: least.turns.max(one.turns.unwrap_or(0)),
                    ..least
                }
            }
        };
        self.spent = self.spent.plus(took);
        true
    }

    /// The same, only where what is reserved is still what was judged: a runner that has begun since is left alone.
    pub fn settle_if(&mut self, runner: Uuid, judged: &Reservation, taken: Taken) -> bool {
        self.reserved.get(&runner) == Some(judged) && self.settle(runner, taken)
    }

    /// More is granted.
    pub fn grant(&mut self, more: &Budget) {
        self.granted = self.granted.plus(more);
        self.overrun = None;
    }
}

impl Reservation {
    /// What the run may take.
    pub fn limits(&self) -> Limits {
        Limits {
            usd: self.usd,
            turns: self.turns,
        }
    }

    /// What became of the run, where no record of it is found, and no lease: one that had begun took all that
    /// it might, since nobody knows.
    pub fn unknown(&self) -> Taken {
        if self.begun {
            Taken::Whole {
                cost: Cost::default(),
                over: false,
            }
        } else {
            Taken::Nothing
        }
    }
}

#[cfg(test)]
mod tests;
