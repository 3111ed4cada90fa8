//! Tasks that wait for a person are parked when their turn comes, and not again once they are approved.

use air_protocol::approval::{Reply, Rules, replied};
use air_protocol::record::Record;
use air_protocol::task::Approval;

use super::*;

fn asks(seq: u64, task: &str, attempt: u32, needs: &[&str]) -> Queued {
    let mut message = message(seq, task, attempt, needs);
    if let Ok(task) = &mut message.task {
        task.approval = Some(Approval::Required);
    }
    message
}

fn parked(pick: &Pick) -> Vec<&str> {
    let parks = |decision: &&air_protocol::lease::Decision| {
        matches!(decision.verdict, Verdict::Park { .. })
    };
    let parks = pick.decisions.iter().filter(parks);
    parks
        .map(|decision| decision.target.task.as_str())
        .collect()
}

fn approved(task: &str) -> Record {
    let mut last = record(task, Status::Parked, 1);
    last.spec = Some(Task::new(Work::Run("true".into())));
    replied(&last, 4, false, "", NOW).unwrap()
}

#[test]
fn a_task_is_parked_when_nothing_else_keeps_it() {
    let backlog = backlog(
        vec![
            asks(1, "a", 1, &[]),
            asks(2, "b", 1, &["a"]),
            message(3, "c", 1, &[]),
        ],
        &[],
    );
    let pick = pick(&backlog);
    assert_eq!(parked(&pick), ["a"], "b waits for a first");
    assert_eq!(ready(&pick), Some(("c", 0)));
}

#[test]
fn a_person_is_asked_before_the_time_of_the_task_has_come() {
    let mut late = asks(1, "a", 1, &[]);
    if let Ok(task) = &mut late.task {
        task.not_before = Some(NOW.after(Duration::from_secs(60)));
    }
    let again = Queued {
        attempt: 2,
        ..late.clone()
    };
    assert_eq!(parked(&pick(&backlog(vec![late], &[]))), ["a"]);
    let backlog = backlog(vec![again], &[(5, approved("a"))]);
    let verdict = &pick(&backlog).decisions[0].verdict;
    assert!(matches!(verdict, Verdict::Move { .. }), "{verdict:?}");
}

#[test]
fn who_was_approved_runs_whichever_is_read_first() {
    let reset = approved("a");
    let known = backlog(vec![asks(7, "a", 2, &[])], &[(5, reset.clone())]);
    assert_eq!(ready(&pick(&known)), Some(("a", 5)));
    // The message by a replica that has not seen the record yet.
    let mut late = Backlog::new(job());
    late.begin(0, 0, NOW);
    late.admit(vec![asks(1, "a", 1, &[])], &lasts(&[], 100), 0, NOW);
    assert_eq!(parked(&pick(&late)), ["a"]);
    late.learn(4, &record("a", Status::Parked, 1), NOW);
    assert!(!pick(&late).has_live());
    late.learn(5, &reset, NOW);
    late.admit(
        vec![asks(7, "a", 2, &[])],
        &lasts(&[(5, reset)], 100),
        0,
        NOW,
    );
    assert_eq!(ready(&pick(&late)), Some(("a", 5)));
}

#[test]
fn an_answer_is_no_approval() {
    let mut reset = approved("a");
    reset.replies = vec![Reply {
        question: Some("which?".into()),
        text: "this".into(),
        at: NOW,
    }];
    let backlog = backlog(vec![asks(7, "a", 2, &[])], &[(5, reset)]);
    assert_eq!(parked(&pick(&backlog)), ["a"]);
}

#[test]
fn other_rules_are_heeded_at_once() {
    let messages = || vec![message(1, "a", 1, &[])];
    let rules = |text: &str| Rules::of(&air_protocol::codec::decode_spec(text.as_bytes()).unwrap());
    let strict = || rules(r#"{"approval": [{"command": "tr*"}]}"#);
    let mut backlog = backlog(messages(), &[]);
    assert!(ready(&pick(&backlog)).is_some());
    backlog.heed(Rules::default());
    backlog.begin(0, 0, NOW);
    assert!(ready(&pick(&backlog)).is_some(), "nothing is forgotten");
    backlog.heed(strict());
    assert!(!pick(&backlog).has_live(), "what was judged is forgotten");
    backlog.begin(0, 0, NOW);
    backlog.admit(messages(), &lasts(&[], 100), 0, NOW);
    assert_eq!(parked(&pick(&backlog)), ["a"]);
    backlog.begin(0, 0, NOW.after(ANEW_EVERY));
    backlog.admit(messages(), &lasts(&[], 100), 0, NOW);
    assert_eq!(parked(&pick(&backlog)), ["a"], "the rules are not");
}
