//! What becomes of a task when an attempt of it is over: done, tried again, or failed for good.
//!
//! Runners use it for what they ran, managers for what a dead runner left.

use std::time::Duration;

use crate::limits::{LATER_MIN, LOSSES_MAX};
use crate::record::Status;
use crate::task::Retry;
use crate::time::Time;

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The work is done.
    Succeeded,
    /// It failed, and may be tried again.
    Failed,
    /// It failed, and would fail again.
    FailedForGood,
    /// It asked to be run later (exit code 75), at a time or as soon as may be.
    Later(Option<Time>),
    /// It asks a person, and goes on with the answer.
    Parked,
    /// Its runner was lost.
    Lost,
    /// A user wanted it stopped.
    Cancelled,
}

/// The counts that a task brings from its record before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Failed attempts since the last reset.
    pub failures: u32,
    /// Lost runners since the last reset.
    pub losses: u32,
}

/// What the record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fate {
    /// The status.
    pub status: Status,
    /// The counts, with this attempt.
    pub tally: Tally,
    /// When the next attempt is due; none when there is none.
    pub retry_at: Option<Time>,
}

/// What becomes of a task after an attempt; `jitter` spreads retries.
pub fn fate(outcome: Outcome, before: Tally, retry: &Retry, now: Time, jitter: u8) -> Fate {
    let mut tally = before;
    let done = |status, tally| Fate {
        status,
        tally,
        retry_at: None,
    };
    let again = |tally, delay: Duration| Fate {
        status: Status::Retrying,
        tally,
        retry_at: Some(now.after(delay)),
    };
    match outcome {
        Outcome::Succeeded => done(Status::Succeeded, tally),
        Outcome::Cancelled => done(Status::Cancelled, tally),
        Outcome::Parked => done(Status::Parked, tally),
        Outcome::FailedForGood => {
            tally.failures = tally.failures.saturating_add(1);
            done(Status::Failed, tally)
        }
        Outcome::Failed => {
            tally.failures = tally.failures.saturating_add(1);
            if tally.failures >= retry.failures_max() {
                done(Status::Failed, tally)
            } else {
                again(tally, retry.delay(tally.failures, jitter))
            }
        }
        Outcome::Later(at) => {
            let delay = at.map_or(LATER_MIN, |at| at.since(now));
            again(tally, delay.max(LATER_MIN))
        }
        Outcome::Lost => {
            tally.losses = tally.losses.saturating_add(1);
            if tally.losses >= LOSSES_MAX {
                done(Status::Failed, tally)
            } else {
                again(tally, Duration::ZERO)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_millis(1_000_000);

    fn after(outcome: Outcome, before: Tally) -> Fate {
        fate(outcome, before, &Retry::default(), NOW, 0)
    }

    #[test]
    fn failures_are_retried_until_the_limit() {
        let mut tally = Tally::default();
        for seconds in [1, 2, 4] {
            let fate = after(Outcome::Failed, tally);
            assert_eq!(fate.retry_at, Some(NOW.after(Duration::from_secs(seconds))));
            tally = fate.tally;
        }
        assert_eq!(after(Outcome::Failed, tally).status, Status::Failed);
    }

    #[test]
    fn lost_runners_have_a_limit_of_their_own() {
        let tally = Tally {
            failures: 3,
            losses: LOSSES_MAX - 2,
        };
        let fate = after(Outcome::Lost, tally);
        assert_eq!(
            (fate.status, fate.retry_at, fate.tally.failures),
            (Status::Retrying, Some(NOW), 3)
        );
        assert_eq!(after(Outcome::Lost, fate.tally).status, Status::Failed);
    }

    #[test]
    fn later_is_no_failure_and_at_least_a_second_away() {
        for (at, delay) in [
            (None, 1),
            (Some(NOW), 1),
            (Some(NOW.after(Duration::from_secs(90))), 90),
        ] {
            let fate = after(
                Outcome::Later(at),
                Tally {
                    failures: 3,
                    losses: 0,
                },
            );
            assert_eq!(fate.retry_at, Some(NOW.after(Duration::from_secs(delay))));
            assert_eq!(fate.tally.failures, 3);
        }
    }

    #[test]
    fn asking_a_person_is_no_failure() {
        let before = Tally {
            failures: 3,
            losses: 1,
        };
        let fate = after(Outcome::Parked, before);
        assert_eq!((fate.status, fate.tally), (Status::Parked, before));
        assert_eq!(fate.retry_at, None);
    }

    #[test]
    fn some_failures_are_for_good() {
        let fate = after(Outcome::FailedForGood, Tally::default());
        assert_eq!((fate.status, fate.tally.failures), (Status::Failed, 1));
        assert_eq!(
            after(Outcome::Cancelled, Tally::default()).status,
            Status::Cancelled
        );
    }
}
