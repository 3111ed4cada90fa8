//! What a manager does where an account has not enough left, or a key is limited.

use air_protocol::budget::Wants;

use super::*;
use crate::backlog::Charge;

fn paid() -> Seen {
    let mut seen = Seen::waiting();
    let mut pick = ready(None);
    pick.ready.as_mut().unwrap().charge = Some(Charge {
        account: "root".parse().unwrap(),
        wants: Wants {
            job: "j".parse().unwrap(),
            task: target().task,
            attempt: 1,
            depth: 0,
            agent: None,
        },
    });
    seen.pick = Some(pick);
    seen
}

fn short(reason: &str) -> Refused {
    Refused {
        target: target(),
        why: Lack::Short(OverBudget {
            account: "root".parse().unwrap(),
            reason: reason.into(),
        }),
    }
}

fn busy() -> Refused {
    Refused {
        target: target(),
        why: Lack::Busy("root".parse().unwrap()),
    }
}

fn rests() -> Step {
    Step::Rest(Rest::OverBudget("root".parse().unwrap()))
}

#[test]
fn a_claim_names_the_account_in_which_it_has_reserved() {
    let Step::Claim(state, _) = paid().step() else {
        panic!("{:?}", paid().step())
    };
    assert_eq!(state.lease().unwrap().budget, Some("root".parse().unwrap()));
    let mut unpaid = Seen::waiting();
    unpaid.pick = Some(ready(None));
    let Step::Claim(state, _) = unpaid.step() else {
        panic!("{:?}", unpaid.step())
    };
    assert_eq!(state.lease().unwrap().budget, None);
}

#[test]
fn a_job_says_what_its_account_lacks_and_rests() {
    let mut seen = paid();
    seen.refused = Some(short("nothing is left"));
    let Step::Write(state) = seen.step() else {
        panic!("{:?}", seen.step())
    };
    assert_eq!(
        state.over_budget.as_ref().unwrap().reason,
        "nothing is left"
    );
    seen.key = Key::State(state.clone(), 8);
    assert_eq!(seen.step(), rests(), "it is said");
    seen.refused = Some(busy());
    let Step::Write(said) = seen.step() else {
        panic!("{:?}", seen.step())
    };
    assert_eq!(said.over_budget, None, "something may come back");
    seen.key = Key::State(said, 9);
    assert_eq!(seen.step(), rests());
    seen.key = Key::State(state, 8);
    seen.refused = None;
    let Step::Claim(state, _) = seen.step() else {
        panic!("{:?}", seen.step())
    };
    assert_eq!(state.over_budget, None);
}

#[test]
fn what_was_refused_for_another_task_says_nothing() {
    let mut seen = paid();
    let mut refused = busy();
    refused.target.attempt += 1;
    seen.refused = Some(refused);
    assert!(matches!(seen.step(), Step::Claim(..)));
}

#[test]
fn a_job_that_was_over_shows_that_it_waits_for_its_account() {
    let mut seen = paid();
    let Change::To(state) = JobState::new(NOW)
        .apply(&Event::Drained { at: 4 }, NOW)
        .unwrap()
    else {
        panic!("it was waiting")
    };
    seen.key = Key::State(state, 7);
    seen.refused = Some(busy());
    let Step::Write(state) = seen.step() else {
        panic!("{:?}", seen.step())
    };
    assert_eq!(state.status, JobStatus::Waiting);
}

#[test]
fn agents_wait_while_their_key_is_limited_and_others_do_not() {
    let mut seen = paid();
    let until = NOW.after(Duration::from_secs(60));
    seen.limited = Some(until);
    assert!(matches!(seen.step(), Step::Claim(..)), "it is no agent's");
    seen.pick.as_mut().unwrap().ready.as_mut().unwrap().agent = true;
    assert_eq!(seen.step(), Step::Rest(Rest::Held(until)));
    seen.limited = Some(NOW);
    assert!(matches!(seen.step(), Step::Claim(..)), "it is over");
}
