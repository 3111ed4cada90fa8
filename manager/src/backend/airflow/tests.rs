//! Tests of what needs no Airflow: names, words, and what is asked of a server that answers as it is told.

use super::*;
use crate::backend::http::tests::{answer, told};

fn order(image: Option<&str>) -> Order {
    Order {
        job: "night-ly".parse().unwrap(),
        seq: 5,
        runner: Uuid::from_u128(0x0192_f3a0),
        fence: 7,
        backend: "airflow".into(),
        state: Some("{}".into()),
        image: image.map(str::to_owned),
        resources: None,
    }
}

fn airflow(kubernetes: bool) -> Airflow {
    airflow_at("http://127.0.0.1:9", kubernetes)
}

/// The password is the variable `PATH`: what it is does not matter here.
fn airflow_at(url: &str, kubernetes: bool) -> Airflow {
    let options = AirflowOptions {
        url: url.into(),
        dag: "air_runner".into(),
        login: crate::AirflowLogin::Password("air".into(), crate::Secret::Env("PATH".into())),
        poll: Duration::from_secs(1),
        kubernetes,
    };
    Airflow::new("airflow".into(), options, "system")
}

fn token(word: &str) -> String {
    answer("201 Created", &format!(r#"{{"access_token":"{word}"}}"#))
}

#[tokio::test]
async fn a_token_that_does_not_count_is_renewed_once() {
    for status in ["401 Unauthorized", "403 Forbidden"] {
        let answers = vec![
            token("one"),
            answer(status, ""),
            token("two"),
            answer("200 OK", "1"),
        ];
        let (url, asked) = told(answers).await;
        let airflow = airflow_at(&url, false);
        assert_eq!(airflow.ask(Method::GET, "/x", None).await, Ok(json!(1)));
        let asked = asked.await.unwrap();
        assert!(asked[1].contains("authorization: Bearer one"), "{asked:?}");
        assert!(asked[3].contains("authorization: Bearer two"), "{asked:?}");
    }
    let answers = vec![
        token("one"),
        answer("403 No", ""),
        token("two"),
        answer("403 No", ""),
    ];
    let (url, _asked) = told(answers).await;
    let asked = airflow_at(&url, false).ask(Method::GET, "/x", None).await;
    assert!(matches!(asked, Err(Fault::Answer(403, _))), "{asked:?}");
}

#[tokio::test]
async fn a_login_that_fails_is_an_airflow_that_is_away() {
    for status in ["401 No", "422 No", "200 OK"] {
        let (url, _asked) = told(vec![answer(status, "{}")]).await;
        let asked = airflow_at(&url, false).trigger(&order(None)).await;
        let text = match asked {
            Err(SpawnError::Unavailable(text)) => text,
            other => panic!("{other:?}"),
        };
        assert!(text.contains("cannot log in"), "{text}");
    }
}

#[tokio::test]
async fn a_run_that_is_not_unique_is_there_only_if_it_can_be_seen() {
    for (seen, wanted) in [
        (answer("200 OK", "{}"), Ok(Spawned::AlreadyThere)),
        (answer("404 Not Found", ""), Err(true)),
        (answer("500 Oh", ""), Err(false)),
    ] {
        let (url, _asked) = told(vec![token("t"), answer("409 Conflict", ""), seen]).await;
        let started = airflow_at(&url, false).trigger(&order(None)).await;
        let started = started.map_err(|error| matches!(error, SpawnError::Refused(_)));
        assert_eq!(started, wanted);
    }
}

#[tokio::test]
async fn a_dag_that_cannot_run_is_an_airflow_that_is_away() {
    for (dag, told_of) in [
        (answer("404 Not Found", ""), "is not there"),
        (answer("200 OK", r#"{"is_paused":true}"#), "is paused"),
        (
            answer("200 OK", r#"{"has_import_errors":true}"#),
            "cannot be imported",
        ),
    ] {
        let (url, _asked) = told(vec![token("t"), dag]).await;
        let looked = airflow_at(&url, false).look_at_dag().await.unwrap_err();
        assert!(
            matches!(&looked, Fault::Away(text) if text.contains(told_of)),
            "{looked}"
        );
    }
    let version = answer("200 OK", r#"{"dag_versions":[{"id":"v"}]}"#);
    let (url, _asked) = told(vec![token("t"), answer("200 OK", "{}"), version]).await;
    let realm = airflow_at(&url, false).look_at_dag().await.unwrap();
    assert_eq!(realm, format!("airflow:v@{url}/air_runner"));
}

#[tokio::test]
async fn all_pages_are_read() {
    let page = |runners: std::ops::Range<u128>| {
        let runs = runners.map(|number| format!("air.{}.j.1", Uuid::from_u128(number)));
        let runs = runs.map(|id| json!({ "dag_run_id": id }));
        let runs: Vec<Value> = runs.collect();
        answer("200 OK", &json!({ "dag_runs": runs }).to_string())
    };
    let (url, _asked) = told(vec![token("t"), page(0..100), page(100..103)]).await;
    assert_eq!(airflow_at(&url, false).list().await.unwrap().len(), 103);
}

#[test]
fn a_run_is_named_by_its_runner_its_job_and_its_fence() {
    let id = run_id(&order(None));
    assert_eq!(id, "air.00000000-0000-0000-0000-00000192f3a0.night-ly.7");
    assert_eq!(runner_of(&json!(id)), Some(order(None).runner));
    for other in ["air.x.y.7", "manual__2026", "air.00000000", ""] {
        assert_eq!(runner_of(&json!(other)), None, "{other}");
    }
    assert_eq!(runner_of(&Value::Null), None);
    let longest = Order {
        job: "J".repeat(64).parse().unwrap(),
        fence: u64::MAX,
        ..order(None)
    };
    assert!(run_id(&longest).len() <= 250, "as many as Airflow takes");
}

#[test]
fn conf_is_the_claim_and_nothing_else() {
    let conf = airflow(false).conf(&order(None));
    let names: Vec<&String> = conf.as_object().unwrap().keys().collect();
    let claim = ["backend", "fence", "job", "runner", "seq", "system"];
    assert_eq!(names, claim);
    assert_eq!(
        (&conf["fence"], &conf["job"]),
        (&json!(7), &json!("night-ly"))
    );
    let conf = airflow(true).conf(&order(Some("debian:12")));
    assert_eq!(conf["image"], json!("debian:12"));
}

#[test]
fn a_word_is_an_exit_code_or_a_signal() {
    for (word, exit) in [
        (json!(0), Exit::Code(0)),
        (json!(69), Exit::Code(69)),
        (json!("69"), Exit::Code(69)),
        (json!(-9), Exit::Killed),
        (json!(null), Exit::Killed),
        (json!("x"), Exit::Killed),
    ] {
        assert_eq!(exit_of_word(&word), exit, "{word}");
    }
}

#[tokio::test]
async fn an_image_needs_kubernetes() {
    let refused = airflow(false).trigger(&order(Some("debian:12"))).await;
    let Err(SpawnError::Refused(text)) = refused else {
        panic!("{refused:?}")
    };
    assert!(text.contains("debian:12"), "{text}");
    let asked = airflow(true).trigger(&order(Some("debian:12"))).await;
    assert!(
        matches!(asked, Err(SpawnError::Unavailable(_))),
        "{asked:?}"
    );
    let offers = [false, true].map(|kubernetes| airflow(kubernetes).offer());
    assert_eq!(
        offers.map(|offer| offer.images && offer.resources),
        [false, true]
    );
}

#[test]
fn silence_counts_only_after_a_while() {
    let airflow = airflow(false);
    let runner = order(None).runner;
    assert!(!airflow.was_silent(runner) && !airflow.was_silent(runner));
    let before = Instant::now().checked_sub(SILENCE).unwrap();
    airflow.silent().insert(runner, before);
    assert!(airflow.was_silent(runner));
}
