//! Tests of what is said to Prefect and understood of it; over HTTP only where it fails.

use air_nats::Options;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::Secret;

fn order() -> Order {
    Order {
        job: "nightly".parse().unwrap(),
        seq: 7,
        runner: Uuid::from_u128(5),
        fence: 9,
        backend: "p".into(),
        state: Some("{}".into()),
        image: None,
        resources: None,
    }
}

fn options(url: &str) -> PrefectOptions {
    PrefectOptions {
        url: url.to_owned(),
        auth: None,
        work_pool: "pool".into(),
        deployment: "air-runner".into(),
        poll: Duration::from_secs(1),
        nats_url: Some("nats://n".into()),
        images: false,
        job_variables: serde_json::Map::new(),
    }
}

fn prefect(options: PrefectOptions) -> Prefect {
    Prefect::new("p".into(), options, &Options::default(), "s")
}

/// A server that gives these answers, one after another; gives its address, and the first lines of what it was asked.
async fn told(answers: &[(u16, &str)]) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/api", listener.local_addr().unwrap());
    let answers: Vec<_> = answers
        .iter()
        .map(|(status, body)| {
            let length = body.len();
            format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            )
        })
        .collect();
    let asked = tokio::spawn(async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut link, _) = listener.accept().await.unwrap();
            let mut part = vec![0; 64 << 10];
            let read = link.read(&mut part).await.unwrap();
            let text = String::from_utf8_lossy(&part[..read]).into_owned();
            asked.push(text.lines().next().unwrap_or_default().to_owned());
            link.write_all(answer.as_bytes()).await.unwrap();
        }
        asked
    });
    (address, asked)
}

#[test]
fn a_flow_run_has_the_claim_as_parameters_and_no_command() {
    let configured = json!({ "env": { "A": "1", "NATS_URL": "mine" }, "image": "x" });
    let env = [
        ("NATS_URL".to_owned(), "theirs".to_owned()),
        ("B".to_owned(), "2".to_owned()),
    ];
    let variables = run::variables(configured.as_object().unwrap(), &env);
    let mut order = order();
    order.image = Some("debian:12".into());
    let id = order.runner;
    assert_eq!(
        run::body(&order, "s", &variables),
        json!({
            "name": order.name("s"), "idempotency_key": format!("air-runner:{id}"),
            "parameters": { "job": "nightly", "seq": 7, "runner": id, "fence": 9, "backend": "p" },
            "job_variables": { "image": "debian:12", "env": { "A": "1", "B": "2", "NATS_URL": "mine" } },
        })
    );
}

#[test]
fn a_state_says_whether_a_runner_lives_and_how_it_ended() {
    let run = |state: &str, message: Value| {
        let key = key_of(Uuid::from_u128(5));
        Run::of(
            &json!({ "id": "i", "idempotency_key": key, "state_type": state, "state": { "message": message } }),
        )
    };
    for state in ["SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"] {
        assert_eq!(run(state, "exit code 1".into()).exit(), None, "{state}");
    }
    let exits = [
        run("COMPLETED", Value::Null),
        run("FAILED", "air-runner ended with exit code 69".into()),
        run("FAILED", "air-runner was ended by signal 9".into()),
        run("CRASHED", "Process exited with status code: -9".into()),
        run("CANCELLED", Value::Null),
    ]
    .map(|run| run.exit().unwrap());
    let killed = Exit::Killed;
    assert_eq!(
        exits,
        [Exit::Code(0), Exit::Code(69), killed, killed, killed]
    );
    assert_eq!(run("FAILED", Value::Null).runner, Some(Uuid::from_u128(5)));
    let somebodys = json!({ "id": "i", "idempotency_key": "theirs", "state_type": "RUNNING" });
    assert_eq!(Run::of(&somebodys).runner, None);
}

#[tokio::test]
async fn a_busy_server_is_asked_again_and_the_same_order_is_known() {
    let pool = (200, r#"{"status":"READY","is_paused":false}"#);
    let id = Uuid::from_u128(3);
    let deployment = format!(r#"{{"id":"{id}","work_pool_name":"pool"}}"#);
    let busy = (503, r#"{"exception_message":"Service Unavailable"}"#);
    let (url, asked) = told(&[pool, (200, &deployment), busy, busy, (200, "{}")]).await;
    let prefect = prefect(options(&url));
    assert_eq!(
        prefect.spawn(&order()).await,
        Ok(Spawned::AlreadyThere),
        "200 and not 201"
    );
    let asked = asked.await.unwrap();
    let created = format!("POST /api/deployments/{id}/create_flow_run HTTP/1.1");
    assert_eq!(asked[0], "GET /api/work_pools/pool HTTP/1.1");
    assert_eq!(asked[2..], [created.clone(), created.clone(), created]);
}

#[tokio::test]
async fn what_keeps_all_runners_from_starting_is_said_and_refuses_nothing() {
    for (answer, text) in [
        ((404, "{}"), "make it: `prefect work-pool create pool"),
        (
            (200, r#"{"status":"PAUSED","is_paused":true}"#),
            "`pool` is paused",
        ),
        (
            (200, r#"{"status":"NOT_READY"}"#),
            "no worker that is online",
        ),
        ((401, "{}"), "status 401"),
    ] {
        let (url, _asked) = told(&[answer]).await;
        let error = prefect(options(&url)).spawn(&order()).await.unwrap_err();
        assert!(
            matches!(&error, SpawnError::Unavailable(said) if said.contains(text)),
            "{text}: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_deployment_of_another_work_pool_is_not_used() {
    let theirs = r#"{"id":"00000000-0000-0000-0000-000000000003","work_pool_name":"theirs"}"#;
    let (url, _asked) = told(&[(200, theirs)]).await;
    let told = prefect(options(&url)).look().await.unwrap_err().to_string();
    assert!(told.contains("`theirs` and not on `pool`"), "{told}");
}

#[tokio::test]
async fn an_image_needs_a_pool_that_runs_images() {
    let order = Order {
        image: Some("debian:12".into()),
        ..order()
    };
    let error = prefect(options("http://127.0.0.1:9")).spawn(&order).await;
    let error = error.unwrap_err();
    assert!(
        matches!(&error, SpawnError::Refused(text) if text.contains("`debian:12`")),
        "{error:?}"
    );
}

#[test]
fn it_is_asked_with_a_key_or_as_a_user() {
    let file = std::env::temp_dir().join(format!("air-prefect-{}", std::process::id()));
    std::fs::write(&file, "admin:pass\n").unwrap();
    let secret = Secret::File(file.clone());
    let header = |auth| {
        let options = PrefectOptions {
            auth: Some(auth),
            ..options("http://127.0.0.1:9")
        };
        prefect(options).authorization().unwrap().unwrap()
    };
    assert_eq!(
        header(PrefectAuth::Key(secret.clone())),
        "Bearer admin:pass"
    );
    assert_eq!(header(PrefectAuth::Basic(secret)), "Basic YWRtaW46cGFzcw==");
    std::fs::remove_file(file).unwrap();
}
