//! Tests of what needs no Airflow: names, words, and what is asked of a server that answers as it is told.

use super::*;

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
    let options = AirflowOptions {
        url: "http://127.0.0.1:9".into(),
        dag: "air_runner".into(),
        login: crate::AirflowLogin::Token(crate::Secret::Env("AIR_TEST_NO_SUCH".into())),
        poll: Duration::from_secs(1),
        kubernetes,
    };
    Airflow::new("airflow".into(), options, "system")
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
