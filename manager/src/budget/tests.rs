//! What a manager writes into an account, and what it learns from polls.

use std::time::Duration;

use air_protocol::budget::{Budget, Wants};

use super::*;

const NOW: Time = Time::from_millis(1_800_000_000_000);
const RUN: Uuid = Uuid::from_u128(1);

fn charge() -> Charge {
    Charge {
        account: "root".parse().unwrap(),
        wants: Wants {
            job: "j".parse().unwrap(),
            task: "t".parse().unwrap(),
            attempt: 1,
            depth: 0,
            agent: None,
        },
    }
}

fn tasks(tasks: u64) -> Budget {
    Budget {
        tasks: Some(tasks),
        ..Budget::default()
    }
}

#[test]
fn an_account_begins_with_the_spec_and_follows_it() {
    let (one, two) = (tasks(1), tasks(2));
    let (written, reserved) = reserve_of(None, Some(&one), &charge(), RUN, NOW);
    let account = written.unwrap();
    assert_eq!((account.limits.tasks, reserved), (Some(1), Ok(())));
    let other = Uuid::from_u128(2);
    let (written, reserved) = reserve_of(Some(account.clone()), Some(&one), &charge(), other, NOW);
    assert_eq!((written, reserved), (None, Err(Refusal::Busy)));
    let (written, reserved) = reserve_of(Some(account.clone()), Some(&two), &charge(), other, NOW);
    assert_eq!((written.unwrap().reserved.len(), reserved), (2, Ok(())));
    let (written, _) = reserve_of(Some(account.clone()), None, &charge(), other, NOW);
    assert_eq!(written, None, "a spec without a budget lets nobody go");
    let (written, reserved) = reserve_of(Some(account), Some(&one), &charge(), RUN, NOW);
    assert_eq!((written, reserved), (None, Ok(())), "it has its own");
}

#[test]
fn a_task_of_an_account_that_is_gone_is_not_let_off() {
    let (written, reserved) = reserve_of(None, None, &charge(), RUN, NOW);
    assert_eq!(written, None);
    assert!(matches!(reserved, Err(Refusal::Short(reason)) if reason.contains("`root`")));
}

#[test]
fn an_overrun_is_written_once() {
    let none = tasks(0);
    let (written, _) = reserve_of(None, Some(&none), &charge(), RUN, NOW);
    let account = written.unwrap();
    assert!(account.overrun.is_some() && account.reserved.is_empty());
    let (again, refused) = reserve_of(Some(account.clone()), Some(&none), &charge(), RUN, NOW);
    assert!(again.is_none() && matches!(refused, Err(Refusal::Short(_))));
    let (more, reserved) = reserve_of(Some(account), Some(&tasks(1)), &charge(), RUN, NOW);
    assert_eq!((more.unwrap().overrun, reserved), (None, Ok(())));
}

#[test]
fn old_reservations_are_looked_at_and_limits_end() {
    let root: JobName = "root".parse().unwrap();
    let (written, _) = reserve_of(None, Some(&tasks(1)), &charge(), RUN, NOW);
    let account = |account| Changed::Account("root".parse().unwrap(), account);
    let until = NOW.after(Duration::from_secs(60));
    let limit = Changed::Limit("k".into(), KeyLimit::new(until, NOW));
    let mut seen = Seen::default();
    seen.learn(vec![account(written.map(Box::new)), limit], 7, NOW);
    assert_eq!(seen.revision, 7);
    assert!(seen.due(NOW).is_empty());
    assert_eq!(seen.due(NOW.after(LEASE_TTL_MIN)), [root]);
    assert_eq!(seen.limited("k", NOW), Some(until));
    assert_eq!(seen.limited("k", until), None);
    assert_eq!(seen.limited("other", NOW), None);
    seen.learn(vec![account(None)], 9, until);
    assert!(seen.due(NOW.after(LEASE_TTL_MIN)).is_empty());
    assert!(seen.limits.is_empty());
}
