//! Agents under a budget: what they spend together, and what each may exceed it by.

use air_protocol::agent::Failure;
use air_protocol::cost::Usd;
use air_protocol::names::JobName;
use air_protocol::record::Status;
use air_tests::{Agents, Step, check, wait_for_within};
use serde_json::json;

use super::{GUARD, agent};

/// Jobs with an agent each.
const JOBS: usize = 6;
/// What the whole tree may cost, and each agent of it.
const BUDGET: Usd = Usd::from_micros(1_000_000);
const EACH: Usd = Usd::from_micros(250_000);

#[tokio::test]
async fn a_tree_of_agents_exceeds_its_budget_by_no_more_than_last_turns() {
    let agents = Agents::start(2).await;
    // They never end by themselves.
    agents
        .standin
        .script_of_each_session("spend", [Step::bash("true").tokens(10_000, 1_000)]);
    let spec = json!({ "budget": { "usd": BUDGET }, "claude": { "max_budget_usd": EACH } });
    agents.air.spec("root", &spec.to_string()).await;
    let claude = json!({ "prompt": "spend", "allowed_tools": ["Bash"], "max_budget_usd": EACH });
    let line = (1..=JOBS).map(|n| {
        let task = json!({ "id": "t", "job": format!("c{n}"), "claude": claude });
        format!("echo '{task}' >> $AIR_TASKS; ")
    });
    let task = json!({ "id": "plan", "run": line.collect::<String>() });
    agents.air.publish("root", &task.to_string()).await;

    let root: JobName = "root".parse().unwrap();
    let (account, resting) = wait_for_within(GUARD, "agents that rest", async || {
        let (account, _) = agents.air.nats.account(&root).await.unwrap();
        let mut resting = 0;
        for n in 1..=JOBS {
            let state = agents.air.state(&format!("c{n}")).await;
            resting += usize::from(state.is_some_and(|state| state.over_budget.is_some()));
        }
        match account {
            Some(account) if account.reserved.is_empty() && resting > 0 => Ok((account, resting)),
            other => Err(other),
        }
    })
    .await;

    let (mut spent, mut ran, mut last_turn) = (Usd::ZERO, 0, Usd::ZERO);
    for n in 1..=JOBS {
        let Some(record) = agents.air.record(&format!("c{n}"), "t").await else {
            continue;
        };
        let cost = record.cost.unwrap();
        assert_eq!(record.status, Status::Failed, "{record:?}");
        assert_eq!(agent(&record).failure, Some(Failure::Budget));
        let turn = Usd::from_micros(cost.usd.micros() / cost.turns.max(1));
        assert!(cost.usd < EACH.plus(turn).plus(turn), "{cost:?}");
        (spent, ran, last_turn) = (spent.plus(cost.usd), ran + 1, turn);
    }
    println!(
        "budget {BUDGET}, {ran} agents of {EACH} each ran, {resting} rest; spent {spent}, a turn is {last_turn}"
    );
    assert_eq!(account.spent.usd, spent, "{account:?}");
    let turns = (0..ran).fold(Usd::ZERO, |sum, _| sum.plus(last_turn));
    assert!(spent <= BUDGET.plus(turns), "{spent} and {turns}");
    assert!(ran < JOBS && resting == JOBS - ran, "{ran} ran");
    check(&agents.air).await;
}
