//! Tests of what the end of the CLI means.

use serde_json::json;

use super::*;

const NOW: Time = Time::from_millis(1_795_896_000_000);
const NEXT: Time = Time::from_millis(1_795_896_007_000);

fn facts(code: i32, stderr: &str) -> Facts<'_> {
    Facts {
        code,
        stderr,
        has_schema: false,
        accepts_denials: false,
        now: NOW,
        next_try: NEXT,
    }
}

fn ended(subtype: &str, api_status: Option<u64>, text: &str) -> Seen {
    Seen {
        result: Some(Ended {
            subtype: subtype.into(),
            is_error: true,
            api_status,
            text: text.into(),
            ..Ended::default()
        }),
        ..Seen::default()
    }
}

#[track_caller]
fn assert_told(seen: &Seen, failure: Failure, outcome: Outcome) {
    let verdict = verdict(seen, facts(1, ""));
    let found = (verdict.failure, verdict.outcome);
    assert_eq!(found, (Some(failure), outcome), "{:?}", verdict.error);
    assert!(verdict.error.is_some_and(|error| error.contains("; ")));
}

const GOOD: Outcome = Outcome::FailedForGood;
const TRY: Outcome = Outcome::Failed;
const LATER: Outcome = Outcome::Later(Some(NEXT));

#[test]
fn each_refusal_of_the_service_is_told_apart() {
    for (status, text, failure, outcome) in [
        (Some(400), "API Error: 400 bad", Failure::Request, GOOD),
        (Some(401), "API Error: 401", Failure::Login, GOOD),
        (Some(403), "API Error: 403", Failure::Login, GOOD),
        (
            Some(400),
            "Your credit balance is low",
            Failure::Login,
            GOOD,
        ),
        (Some(404), "issue with the model", Failure::Model, GOOD),
        (Some(429), "rejected (429)", Failure::RateLimit, LATER),
        (Some(500), "API Error: 500", Failure::Overload, TRY),
        (Some(529), "API Error: 529", Failure::Overload, LATER),
        (None, "Repeated 529 Overloaded", Failure::Overload, LATER),
        (None, "5-hour limit reached", Failure::RateLimit, LATER),
        (None, "Unable to connect to API", Failure::Network, TRY),
        (None, "Request timed out", Failure::Network, TRY),
        (None, "Stream ended without events", Failure::Network, TRY),
        (None, "Not logged in · Please run", Failure::Login, GOOD),
    ] {
        assert_told(&ended("success", status, text), failure, outcome);
    }
}

#[test]
fn each_limit_of_the_attempt_is_told_apart() {
    for (subtype, failure, outcome) in [
        ("error_max_turns", Failure::Turns, GOOD),
        ("error_max_budget_usd", Failure::Budget, GOOD),
        ("error_max_structured_output_retries", Failure::Schema, TRY),
        ("error_during_execution", Failure::Cli, TRY),
    ] {
        assert_told(&ended(subtype, None, ""), failure, outcome);
    }
}

#[test]
fn a_limit_waits_for_the_time_that_was_told() {
    let at = |seen: &Seen| match verdict(seen, facts(1, "")).outcome {
        Outcome::Later(Some(at)) => at.since(NOW).as_secs(),
        other => panic!("{other:?}"),
    };
    let text = "limit reached, retry after 90 seconds";
    assert_eq!(at(&ended("success", Some(429), text)), 90);
    let mut seen = ended("success", Some(429), "slow down");
    assert_eq!(at(&seen), 7);
    seen.retry = Some((Some(429), Duration::from_secs(2)));
    assert_eq!(at(&seen), 7, "its own delay");
    seen.retry = Some((Some(429), Duration::from_secs(30)));
    assert_eq!(at(&seen), 30);
    seen.lifted = Some(NOW.after(Duration::from_secs(500)));
    assert_eq!(at(&seen), 500);
}

#[test]
fn an_agent_that_spent_nothing_need_not_wait() {
    let mut seen = Seen {
        retry: Some((Some(429), Duration::from_secs(40))),
        ..Seen::default()
    };
    let verdict = limited(&seen, NOW).unwrap();
    let at = NOW.after(Duration::from_secs(40));
    assert_eq!(verdict.outcome, Outcome::Later(Some(at)));
    seen.answered = true;
    assert_eq!(limited(&seen, NOW), None);
    seen.answered = false;
    seen.retry = Some((Some(500), Duration::from_secs(40)));
    assert_eq!(limited(&seen, NOW), None);
    seen.retry = Some((Some(429), Duration::from_secs(1)));
    assert_eq!(limited(&seen, NOW), None);
}

#[test]
fn success_is_more_than_an_exit_code() {
    let mut seen = ended("success", None, "done");
    let result = |seen: &mut Seen| seen.result.take().unwrap();
    let mut good = result(&mut seen);
    good.is_error = false;
    good.denied = vec!["Bash".into()];
    seen.result = Some(good.clone());
    let denied = verdict(&seen, facts(0, ""));
    assert_eq!(denied.failure, Some(Failure::Permission));
    let accepting = Facts {
        accepts_denials: true,
        ..facts(0, "")
    };
    assert_eq!(verdict(&seen, accepting).outcome, Outcome::Succeeded);
    good.denied.clear();
    seen.result = Some(good.clone());
    assert_eq!(verdict(&seen, facts(0, "")).outcome, Outcome::Succeeded);
    assert_eq!(verdict(&seen, facts(1, "")).outcome, Outcome::Failed);
    let wanting = Facts {
        has_schema: true,
        ..facts(0, "")
    };
    assert_eq!(verdict(&seen, wanting).failure, Some(Failure::Schema));
    good.structured = Some(json!({}));
    seen.result = Some(good);
    assert_eq!(verdict(&seen, wanting).outcome, Outcome::Succeeded);
    seen.unconnected.push(("air".into(), "failed".into()));
    assert_eq!(verdict(&seen, facts(0, "")).failure, Some(Failure::Mcp));
}

#[test]
fn without_a_result_its_standard_error_tells() {
    let of = |code, stderr| verdict(&Seen::default(), facts(code, stderr));
    assert_eq!(
        of(1, "No conversation found with session ID: x").failure,
        Some(Failure::Session)
    );
    assert_eq!(
        of(1, "Error: Session ID x is already in use.").failure,
        Some(Failure::Session)
    );
    let unknown = of(1, "error: unknown option '--frob'");
    assert_eq!(unknown.failure, Some(Failure::Cli));
    assert!(unknown.error.unwrap().contains("--frob"));
    assert_eq!(of(75, "").outcome, Outcome::Later(Some(NEXT)));
}
