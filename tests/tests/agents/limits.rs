//! Limits of the key: the task waits without a process, without a failure, and goes on in its session.

use std::time::Duration;

use air_protocol::agent::Failure;
use air_protocol::record::{Record, Status};
use air_protocol::time::Time;
use air_tests::{Agents, Step};
use serde_json::json;

use super::{agent, ended};

fn first(records: &[(u64, Record)]) -> &Record {
    &records[0].1
}

#[tokio::test]
async fn a_limit_without_a_time_is_tried_again_later_in_the_same_session() {
    let agents = Agents::start(1).await;
    let limited = Step::rate_limited(Some(3600));
    agents.standin.script(
        "much to do",
        [
            Step::bash("echo the first half"),
            limited.clone(),
            limited,
            Step::text("both halves"),
        ],
    );
    let task = json!({
        "id": "t", "retry": { "max": 0, "backoff": "100ms" },
        "claude": { "prompt": "much to do", "allowed_tools": ["Bash"] },
    });
    agents.air.publish("j", &task.to_string()).await;
    let record = ended(&agents, "j", "t").await;
    assert_eq!(
        (record.status, record.attempt, record.failures),
        (Status::Succeeded, 3, 0)
    );
    let records = agents.air.records("j").await;
    let (before, then) = (first(&records), &records[1].1);
    assert_eq!(before.status, Status::Retrying);
    assert_eq!(agent(before).failure, Some(Failure::RateLimit));
    assert_eq!(agent(before).saved.as_deref(), Some("j.t.session"));
    assert!(before.error.as_ref().unwrap().contains("no time was told"));
    let delay = |record: &Record| record.retry_at.unwrap().since(record.ended);
    assert!(
        delay(then) > delay(before),
        "{:?} {:?}",
        delay(then),
        delay(before)
    );
    for other in [then, &record] {
        assert_eq!(agent(other).session, agent(before).session);
    }
    let asked = agents.standin.requests("much to do");
    let last = asked.last().unwrap().text();
    assert!(
        last.contains("the first half") && last.contains("Continue where you stopped"),
        "{last}"
    );
    assert_eq!(asked.len(), 4);
    let sum = records
        .iter()
        .filter_map(|(_, record)| record.cost)
        .map(|cost| cost.turns)
        .sum::<u64>();
    assert!(
        agents
            .air
            .state("j")
            .await
            .unwrap()
            .ledger
            .counters
            .cost
            .turns
            >= sum.min(2)
    );
}

#[tokio::test]
async fn a_limit_that_tells_its_end_is_waited_for_until_then() {
    let agents = Agents::start(1).await;
    let at = Time::from_millis(now().as_millis() / 1000 * 1000 + 3_600_000);
    let text = format!("limit reached, resets at {at}");
    agents.standin.script(
        "told",
        [Step::status(429, &text).header("retry-after", "3600")],
    );
    agents
        .air
        .publish("told", &json!({ "id": "t", "claude": "told" }).to_string())
        .await;
    let record = agents.air.wait_record("told", "t", Status::Retrying).await;
    let due = record.retry_at.unwrap();
    let off = due.since(at).max(at.since(due));
    assert!(off < Duration::from_secs(600), "{due} instead of {at}");
    assert!(record.error.unwrap().contains("at the time told"));
}

#[tokio::test]
async fn a_limit_that_a_header_tells_is_not_sat_out() {
    let agents = Agents::start(1).await;
    agents.standin.script(
        "header",
        [Step::rate_limited(Some(45)), Step::text("never")],
    );
    agents
        .air
        .publish(
            "header",
            &json!({ "id": "t", "claude": "header" }).to_string(),
        )
        .await;
    let record = agents
        .air
        .wait_record("header", "t", Status::Retrying)
        .await;
    let wait = record.retry_at.unwrap().since(record.ended);
    assert!(wait > Duration::from_secs(30), "{wait:?}");
    assert_eq!(agents.standin.requests("header").len(), 1);
    assert_eq!(
        (record.failures, agent(&record).failure),
        (0, Some(Failure::RateLimit))
    );
}

#[tokio::test]
async fn overload_is_no_failure_either() {
    let agents = Agents::start(1).await;
    agents
        .standin
        .script("full", [Step::status(529, "Overloaded")]);
    agents
        .air
        .publish("full", &json!({ "id": "t", "claude": "full" }).to_string())
        .await;
    let record = agents.air.wait_record("full", "t", Status::Retrying).await;
    assert_eq!(
        (record.failures, agent(&record).failure),
        (0, Some(Failure::Overload))
    );
}

fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Time::from_millis(u64::try_from(since.unwrap().as_millis()).unwrap())
}
