//! Tests of what a pick says is to be reserved for a task, and of agents that stand too deep.

use air_protocol::codec::{decode_spec, decode_task};
use air_protocol::limits::DEPTH_MAX;

use super::*;

fn of(text: &str, leash: Leash) -> Backlog {
    let mut message = message(2, "t", 1, &[]);
    message.leash = leash;
    message.task = Ok(decode_task(None, text.as_bytes()).unwrap());
    backlog(vec![message], &[])
}

fn spec(text: &str) -> Spec {
    decode_spec(text.as_bytes()).unwrap()
}

fn charge(text: &str, leash: Leash, spec_text: &str) -> Option<Charge> {
    let pick = pick_with(&of(text, leash), &spec(spec_text), NOW);
    pick.ready.unwrap().charge
}

fn of_root(depth: u32) -> Leash {
    Leash {
        budget: Some("root".parse().unwrap()),
        depth,
    }
}

#[test]
fn the_account_that_a_task_brings_pays_or_that_of_its_job() {
    let run = r#"{"run":"true"}"#;
    assert_eq!(charge(run, Leash::default(), "{}"), None);
    let own = charge(run, Leash::default(), r#"{"budget":{}}"#).unwrap();
    assert_eq!((own.account.as_str(), own.wants.depth), ("j", 0));
    let root = charge(run, of_root(3), r#"{"budget":{}}"#).unwrap();
    assert_eq!((root.account.as_str(), root.wants.depth), ("root", 3));
    assert_eq!((root.wants.job, root.wants.task), (job(), id("t")));
    assert_eq!(root.wants.agent, None);
}

#[test]
fn an_agent_asks_for_its_own_limits_or_those_of_its_job() {
    let defaults = r#"{"claude":{"max_turns":7,"max_budget_usd":0.5}}"#;
    let asked = |text: &str, spec: &str| charge(text, of_root(1), spec).unwrap().wants.agent;
    let limits = asked(r#"{"claude":"hi"}"#, defaults).unwrap();
    assert_eq!(
        (limits.usd, limits.turns),
        (Some("0.5".parse().unwrap()), Some(7))
    );
    let own = r#"{"claude":{"prompt":"hi","max_turns":3,"max_budget_usd":2}}"#;
    let limits = asked(own, defaults).unwrap();
    assert_eq!(
        (limits.usd, limits.turns),
        (Some("2".parse().unwrap()), Some(3))
    );
    let none = asked(r#"{"claude":"hi"}"#, "{}").unwrap();
    assert_eq!(none, Limits::default());
}

#[test]
fn the_rest_of_a_family_is_paid_for_by_nobody() {
    let fanout = r#"{"fanout":{"run":"018f3b1e-7c5a-7d3e-9f00-0123456789ab","parent":"j/p","page":1,"pages":2}}"#;
    assert_eq!(charge(fanout, of_root(1), r#"{"budget":{}}"#), None);
}

#[test]
fn an_agent_too_deep_below_a_users_task_fails_also_without_a_budget() {
    let deep = |text: &str, depth| {
        let leash = Leash {
            budget: None,
            depth,
        };
        pick(&of(text, leash))
    };
    let agent = r#"{"claude":"hi"}"#;
    assert!(deep(agent, DEPTH_MAX).ready.is_some());
    let picked = deep(agent, DEPTH_MAX + 1);
    assert!(picked.ready.is_none());
    assert!(
        matches!(&picked.decisions[0].verdict, Verdict::Fail { reason } if reason.contains("1001 generations"))
    );
    let other = deep(r#"{"run":"true"}"#, DEPTH_MAX + 1);
    assert!(
        other.ready.is_some(),
        "a chain of other tasks may go on for ever"
    );
}
