//! What holds of an account whatever is asked of it, in whatever order, and however often.

mod deaths;

use proptest::prelude::*;

use super::*;
use crate::record::Status;
use crate::task::{Fanout, Task};
use crate::time::Span;

const NOW: Time = Time::from_millis(1_800_000_000_000);

fn usd(micros: u64) -> Option<Usd> {
    Some(Usd::from_micros(micros))
}

fn wants(agent: Option<Limits>) -> Wants {
    Wants {
        job: "j".parse().unwrap(),
        task: "t".parse().unwrap(),
        attempt: 1,
        depth: 0,
        agent,
    }
}

fn agent(micros: u64) -> Wants {
    wants(Some(Limits {
        usd: usd(micros),
        turns: None,
    }))
}

fn account(micros: u64) -> Account {
    Account::new(Budget {
        usd: usd(micros),
        ..Budget::default()
    })
}

fn known(micros: u64) -> Taken {
    let cost = Cost {
        usd: Usd::from_micros(micros),
        ..Cost::default()
    };
    Taken::Known { cost, over: true }
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// Something that happens to an account. What a run takes is what was reserved and, at most, one turn more.
#[derive(Debug, Clone)]
enum Step {
    Reserve(u128, Option<u64>),
    Begin(u128),
    Settle(u128, u64, u64),
    Lose(u128),
    Grant(u64),
}

/// The most that the last turn of an agent costs here.
const TURN: u64 = 50;

fn step() -> impl Strategy<Value = Step> {
    let run = 1..40_u128;
    prop_oneof![
        6 => (run.clone(), prop::option::of(1..400_u64)).prop_map(|(run, own)| Step::Reserve(run, own)),
        2 => run.clone().prop_map(Step::Begin),
        4 => (run.clone(), 0..1000_u64, 0..=TURN).prop_map(|(run, part, turn)| Step::Settle(run, part, turn)),
        1 => run.prop_map(Step::Lose),
        1 => (1..200_u64).prop_map(Step::Grant),
    ]
}

proptest! {
    #[test]
    fn what_is_spent_and_reserved_is_never_more_than_the_budget_and_last_turns(
        limit in 1..5_000_u64,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut account = account(limit);
        let (mut turns, mut granted, mut ended) = (0, 0, 0_u64);
        for step in steps {
            let before = account.clone();
            match step {
                Step::Reserve(run, own) => {
                    let wants = own.map_or_else(|| wants(Some(Limits::default())), agent);
                    let held = account.reserved.contains_key(&id(run));
                    match account.reserve(id(run), &wants, NOW) {
                        Ok(changed) => prop_assert_eq!(changed, !held),
                        Err(_) => prop_assert_eq!(&account, &before),
                    }
                    let again = account.clone();
                    if again.reserved.contains_key(&id(run)) {
                        prop_assert_eq!(account.reserve(id(run), &wants, NOW), Ok(false));
                        prop_assert_eq!(&account, &again);
                    }
                }
                Step::Begin(run) => drop(account.begin(id(run))),
                Step::Settle(run, part, turn) => {
                    let reserved = before.reserved.get(&id(run)).and_then(|one| one.usd);
                    let took = reserved.map_or(0, Usd::micros) * part / 1000 + turn;
                    if account.settle(id(run), known(took)) {
                        turns += turn;
                        ended += 1;
                    }
                    let again = account.clone();
                    prop_assert!(!account.settle(id(run), known(took)), "settled once");
                    prop_assert_eq!(&account, &again);
                }
                Step::Lose(run) => {
                    let taken = before.reserved.get(&id(run)).map(Reservation::unknown);
                    account.settle(id(run), taken.unwrap_or(Taken::Nothing));
                }
                Step::Grant(more) => {
                    account.grant(&Budget { usd: usd(more), ..Budget::default() });
                    granted += more;
                }
            }
            let sum = account.spent.usd.plus(account.reserved_sum().usd).micros();
            prop_assert!(sum <= limit + granted + turns, "{} of {}", sum, limit + granted);
            prop_assert_eq!(account.spent.tasks, ended);
            prop_assert!(account.reserved.values().all(|one| one.usd.unwrap().micros() > 0));
        }
        let bytes = codec::encode(crate::spec::Wire::Json, &account);
        prop_assert_eq!(Account::decode(&bytes).unwrap(), account);
    }
}

#[test]
fn each_claim_leaves_enough_for_those_before_it() {
    let mut account = account(100);
    assert_eq!(account.reserve(id(1), &agent(60), NOW), Ok(true));
    assert_eq!(
        account.reserve(id(2), &agent(60), NOW),
        Err(Refusal::Busy),
        "the first may give some back"
    );
    assert_eq!(account.reserve(id(3), &agent(40), NOW), Ok(true));
    assert!(account.settle(id(1), known(60)));
    let refused = account.reserve(id(2), &agent(60), NOW).unwrap_err();
    let Refusal::Short(reason) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(
        reason,
        "the next task wants 0.00006 USD, and 0.00004 USD are left"
    );
    account.overrun = Some(reason);
    let more = Budget {
        usd: usd(60),
        tasks: Some(5),
        ..Budget::default()
    };
    account.grant(&more);
    assert_eq!(account.overrun, None);
    assert_eq!(
        account.total().tasks,
        None,
        "what has no limit needs no grant"
    );
    assert_eq!(account.reserve(id(2), &agent(60), NOW), Ok(true));
}

#[test]
fn who_names_no_limit_reserves_a_share() {
    let mut account = account(1_000_000);
    let open = wants(Some(Limits::default()));
    let mut sum = 0;
    for run in 0..60 {
        match account.reserve(id(run), &open, NOW) {
            Ok(_) => {}
            Err(refusal) => assert_eq!(refusal, Refusal::Busy, "run {run}"),
        }
        sum = account.reserved_sum().usd.micros();
        assert!(sum <= 1_000_000);
    }
    assert_eq!(
        account.reserved[&id(0)].usd,
        usd(100_000),
        "a tenth of the whole"
    );
    assert_eq!(
        account.reserved[&id(1)].usd,
        usd(90_000),
        "a tenth of the rest"
    );
    assert_eq!(sum, 1_000_000, "down to the last cent");
}

#[test]
fn what_is_not_limited_is_not_shared_out() {
    let mut account = Account::new(Budget::default());
    assert_eq!(
        account.reserve(id(1), &wants(Some(Limits::default())), NOW),
        Ok(true)
    );
    assert_eq!(account.begin(id(1)), Some((Limits::default(), true)));
    assert_eq!(account.reserve(id(2), &agent(7), NOW), Ok(true));
    let own = account.begin(id(2)).unwrap().0;
    assert_eq!((own.usd, own.turns), (usd(7), None));
    assert_eq!(account.begin(id(2)), Some((own, false)));
    assert_eq!(account.begin(id(3)), None, "nothing is reserved for it");
}

#[test]
fn turns_and_tokens_are_reserved_as_well() {
    let mut account = Account::new(Budget {
        turns: Some(25),
        tokens: Some(150_000),
        ..Budget::default()
    });
    let with_turns = |turns| {
        wants(Some(Limits {
            usd: None,
            turns: Some(turns),
        }))
    };
    assert_eq!(account.reserve(id(1), &with_turns(20), NOW), Ok(true));
    assert_eq!(
        account.reserve(id(2), &with_turns(6), NOW),
        Err(Refusal::Busy)
    );
    assert_eq!(account.reserve(id(2), &with_turns(5), NOW), Ok(true));
    assert_eq!(account.reserved[&id(1)].tokens, Some(100_000));
    assert_eq!(account.reserved[&id(2)].tokens, Some(50_000));
    let cost = Cost {
        input_tokens: 150_001,
        turns: 3,
        ..Cost::default()
    };
    assert!(account.settle(id(1), Taken::Known { cost, over: false }));
    assert!(account.settle(id(2), Taken::Nothing));
    let spent = Spent {
        tokens: 150_001,
        turns: 3,
        ..Spent::default()
    };
    assert_eq!(account.spent, spent);
    let refused = account.reserve(id(4), &with_turns(1), NOW);
    assert!(
        matches!(refused, Err(Refusal::Short(reason)) if reason.contains("0 tokens")),
        "tokens are over, though turns are left"
    );
}

#[test]
fn tasks_count_when_they_are_over_and_while_they_run() {
    let mut account = Account::new(Budget {
        tasks: Some(2),
        ..Budget::default()
    });
    let plain = wants(None);
    assert_eq!(account.reserve(id(1), &plain, NOW), Ok(true));
    assert_eq!(account.reserve(id(2), &plain, NOW), Ok(true));
    assert_eq!(account.reserve(id(3), &plain, NOW), Err(Refusal::Busy));
    let retried = Taken::Known {
        cost: Cost::default(),
        over: false,
    };
    assert!(account.settle(id(1), retried));
    assert_eq!(
        account.reserve(id(3), &plain, NOW),
        Ok(true),
        "its next attempt"
    );
    assert!(account.settle(id(2), known(0)) && account.settle(id(3), known(0)));
    let refused = account.reserve(id(4), &plain, NOW);
    assert!(matches!(refused, Err(Refusal::Short(reason)) if reason.contains("0 of its tasks")));
}

#[test]
fn depth_and_time_are_bounded() {
    let mut account = Account::new(Budget {
        depth: Some(2),
        wall: Some(Span(std::time::Duration::from_secs(60))),
        ..Budget::default()
    });
    let deep = |depth| Wants {
        depth,
        ..wants(None)
    };
    let refused = account.reserve(id(1), &deep(3), NOW).unwrap_err();
    assert!(matches!(refused, Refusal::TooDeep(reason) if reason.contains("3 generations")));
    assert_eq!(account.started, None);
    assert_eq!(account.reserve(id(1), &deep(2), NOW), Ok(true));
    let end = NOW.after(std::time::Duration::from_secs(60));
    let early = Time::from_millis(end.as_millis() - 1);
    assert_eq!(account.reserve(id(2), &deep(0), early), Ok(true));
    assert_eq!(account.started, Some(NOW), "the first claim began it");
    let refused = account.reserve(id(3), &deep(0), end);
    assert!(matches!(refused, Err(Refusal::Short(reason)) if reason.contains("its time of 1m")));
    account.grant(&Budget {
        wall: Some(Span(std::time::Duration::from_secs(1))),
        ..Budget::default()
    });
    assert_eq!(account.reserve(id(3), &deep(0), end), Ok(true));
    let mut deepest = Account::new(Budget {
        depth: Some(u32::MAX),
        ..Budget::default()
    });
    assert_eq!(deepest.reserve(id(1), &deep(DEPTH_MAX), NOW), Ok(true));
    assert!(matches!(
        deepest.reserve(id(2), &deep(DEPTH_MAX + 1), NOW),
        Err(Refusal::TooDeep(_))
    ));
}

#[test]
fn an_account_does_not_grow_without_bound() {
    let mut account = Account::new(Budget::default());
    let most = u128::try_from(RESERVATIONS_MAX).unwrap();
    for run in 0..most {
        assert_eq!(account.reserve(id(run), &wants(None), NOW), Ok(true));
    }
    assert_eq!(
        account.reserve(id(most), &wants(None), NOW),
        Err(Refusal::Busy)
    );
    let bytes = codec::encode(crate::spec::Wire::Json, &account);
    assert!(
        bytes.len() < 512 * 1024,
        "{} bytes in one message",
        bytes.len()
    );
}

#[test]
fn nobody_knows_what_a_lost_agent_took() {
    let mut record = Record::new("t".parse().unwrap(), Status::Retrying, 1, NOW);
    let nothing = Taken::Known {
        cost: Cost::default(),
        over: false,
    };
    record.spec = Some(Task::new(Work::Run("true".into())));
    record.started = Some(NOW);
    assert_eq!(
        Taken::of_record(&record),
        nothing,
        "other tasks take no money"
    );
    let prompt = serde_json::from_str(r#"{"claude":"hi"}"#).unwrap();
    record.spec = Some(prompt);
    assert_eq!(Taken::of_record(&record), nothing, "it had no answer yet");
    let seen = Cost {
        input_tokens: 500,
        ..Cost::default()
    };
    let whole = |cost| Taken::Whole { cost, over: false };
    record.cost = Some(seen);
    assert_eq!(Taken::of_record(&record), whole(seen), "it was ended");
    record.exit = Some(1);
    let cost = seen;
    assert_eq!(
        Taken::of_record(&record),
        Taken::Known { cost, over: false },
        "it ended by itself, and told"
    );
    let cost = Cost {
        usd: Usd::from_micros(7),
        ..seen
    };
    (record.exit, record.cost) = (None, Some(cost));
    let told = Taken::Known { cost, over: false };
    assert_eq!(Taken::of_record(&record), told, "its CLI told the price");
    (record.cost, record.lost) = (None, true);
    assert_eq!(Taken::of_record(&record), whole(Cost::default()), "lost");
    record.started = None;
    assert_eq!(Taken::of_record(&record), nothing, "it never began");
    (record.started, record.lost) = (Some(NOW), false);
    record.status = Status::Succeeded;
    assert_eq!(Taken::of_record(&record), known(0));
    let mut account = account(100);
    account.reserve(id(1), &agent(60), NOW).unwrap();
    account.reserve(id(2), &agent(40), NOW).unwrap();
    account.begin(id(1)).unwrap();
    for run in [1, 2] {
        let taken = account.reserved[&id(run)].unknown();
        assert!(account.settle(id(run), taken));
    }
    assert_eq!(account.spent.usd, Usd::from_micros(60));
    assert!(account.reserved.is_empty());
    account.reserve(id(3), &agent(40), NOW).unwrap();
    assert!(account.settle(id(3), whole(Cost::default())));
    assert_eq!(
        account.spent.usd,
        Usd::from_micros(60),
        "its runner was lost before it began"
    );
}

#[test]
fn who_has_begun_since_it_was_judged_is_left_alone() {
    let mut account = account(100);
    account.reserve(id(1), &agent(60), NOW).unwrap();
    let judged = account.reserved[&id(1)].clone();
    account.begin(id(1)).unwrap();
    assert!(!account.settle_if(id(1), &judged, judged.unknown()));
    assert!(account.reserved.contains_key(&id(1)));
    let begun = account.reserved[&id(1)].clone();
    assert!(account.settle_if(id(1), &begun, begun.unknown()));
    assert!(!account.settle_if(id(1), &begun, begun.unknown()));
    assert_eq!(account.spent.usd, Usd::from_micros(60));
}

#[test]
fn a_record_proves_what_a_run_took_that_began_and_told() {
    let mut record = Record::new("t".parse().unwrap(), Status::Succeeded, 1, NOW);
    (record.run, record.started) = (Some(id(1)), Some(NOW));
    record.spec = Some(Task::new(Work::Run("true".into())));
    let one = Spent {
        tasks: 1,
        ..Spent::default()
    };
    assert_eq!(Spent::of(&record), one);
    let nothing = |change: fn(&mut Record)| {
        let mut changed = record.clone();
        change(&mut changed);
        assert_eq!(Spent::of(&changed), Spent::default(), "{changed:?}");
    };
    nothing(|by_a_user| by_a_user.run = None);
    nothing(|never_began| never_began.started = None);
    nothing(|page| {
        page.spec = Some(Task::new(Work::Fanout(Fanout {
            run: id(1),
            parent: "j/t".into(),
            page: 1,
            pages: 2,
        })));
    });
    nothing(|lost_agent| {
        lost_agent.spec = serde_json::from_str(r#"{"claude":"hi"}"#).ok();
        lost_agent.lost = true;
    });
}

#[test]
fn a_lost_agent_took_all_tokens_and_turns_that_it_might() {
    let mut account = Account::new(Budget {
        tokens: Some(1_000_000),
        turns: Some(50),
        ..Budget::default()
    });
    let own = Limits {
        usd: None,
        turns: Some(10),
    };
    account.reserve(id(1), &wants(Some(own)), NOW).unwrap();
    account.begin(id(1)).unwrap();
    let reserved = account.reserved_sum();
    assert!(reserved.tokens > 0);
    let (cost, over) = (Cost::default(), false);
    account.settle(id(1), Taken::Whole { cost, over });
    let (tokens, turns) = (account.spent.tokens, account.spent.turns);
    assert_eq!((tokens, turns), (reserved.tokens, 10));
}
