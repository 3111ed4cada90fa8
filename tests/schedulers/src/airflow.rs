//! An Airflow that was started for the tests: its REST API as a person asks it, and a DAG for each test.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};

use air_tests::conformance::Ground;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::door;

/// An Airflow, by the variable that names its folder.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Airflow(pub &'static str);

impl Airflow {
    /// Its folder, as its script was told.
    pub fn folder(self) -> PathBuf {
        let folder = std::env::var_os(self.0);
        folder.expect("run by `cargo xtask test --all`").into()
    }

    /// The file with the password of the user `admin`.
    pub fn password_file(self) -> PathBuf {
        let file = self.folder().join("password");
        std::fs::write(&file, "admin\n").unwrap();
        file
    }

    fn address(self) -> SocketAddr {
        let read = |name| std::fs::read_to_string(self.folder().join(name)).unwrap();
        let (host, port) = (read("api_host"), read("api_port"));
        format!("{}:{}", host.trim(), port.trim()).parse().unwrap()
    }

    /// Asks it; it must say yes.
    pub fn ask(self, method: &str, path: &str, body: Option<&Value>) -> Value {
        self.try_ask(method, path, body)
            .unwrap_or_else(|status| panic!("{method} {path}: {status}"))
    }

    /// Asks it; gives the status where it says no.
    pub fn try_ask(self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, u16> {
        let who = json!({ "username": "admin", "password": "admin" });
        let at = format!("http://{}", self.address());
        let given = curl("POST", &format!("{at}/auth/token"), None, Some(&who))?;
        let token = given["access_token"].as_str();
        curl(method, &format!("{at}{path}"), token, body)
    }
}

fn curl(method: &str, url: &str, token: Option<&str>, body: Option<&Value>) -> Result<Value, u16> {
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--noproxy",
        "*",
        "--max-time",
        "120",
    ])
    .args(["--write-out", "\n%{http_code}", "--request", method])
    .args(["--header", "Content-Type: application/json"]);
    if let Some(token) = token {
        curl.args(["--header", &format!("Authorization: Bearer {token}")]);
    }
    curl.args(["--data-binary", "@-", url]);
    let mut asked = curl
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let body = body.map_or_else(String::new, Value::to_string);
    asked
        .stdin
        .take()
        .unwrap()
        .write_all(body.as_bytes())
        .unwrap();
    let answer = asked.wait_with_output().unwrap();
    assert!(answer.status.success(), "{method} {url}: {}", answer.status);
    let text = String::from_utf8(answer.stdout).unwrap();
    let (text, status) = text.rsplit_once('\n').unwrap();
    match status.parse().unwrap() {
        200..=299 => Ok(serde_json::from_str(text).unwrap_or_default()),
        other => Err(other),
    }
}

/// One of the DAGs in `dags/air_runners.py`, with what belongs to it.
#[derive(Clone, Copy)]
pub struct Slot {
    airflow: Airflow,
    number: usize,
    /// The port of the door before Airflow.
    pub port: u16,
}

impl Slot {
    /// That of a test: the same one whenever it asks.
    pub fn of(airflow: Airflow, ground: &Ground) -> Self {
        static ALL: OnceLock<Mutex<HashMap<PathBuf, Slot>>> = OnceLock::new();
        let mut all = ALL.get_or_init(Mutex::default).lock().unwrap();
        let number = all.len();
        *all.entry(ground.folder().to_owned())
            .or_insert_with(|| Self {
                airflow,
                number,
                port: door::open(ground.door(), airflow.address()),
            })
    }

    /// A backend that triggers it.
    pub fn backend(self) -> String {
        format!(
            r#"
            [[backend]]
            name = "tested"
            kind = "airflow"
            url = "http://127.0.0.1:{}"
            dag = "{}"
            user = "admin"
            password_file = "{}"
            poll = "1s"
            "#,
            self.port,
            self.dag(),
            self.airflow.password_file().display(),
        )
    }

    /// The id of the DAG.
    pub fn dag(self) -> String {
        format!("air_runner_{}", self.number)
    }

    /// Where Airflow's API has it.
    pub fn path(self) -> String {
        format!("/api/v2/dags/{}", self.dag())
    }

    /// The id of a runner's run.
    pub fn run_of(self, runner: Uuid) -> String {
        let path = format!("{}/dagRuns?run_id_prefix_pattern=air.{runner}", self.path());
        let found = self.airflow.ask("GET", &path, None);
        found["dag_runs"][0]["dag_run_id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Leads runners to NATS.
    pub fn connect(self, nats: &str) {
        let id = format!("air_{}", self.number);
        let body = json!({ "connection_id": id, "conn_type": "air_executor", "host": nats });
        let there = self
            .airflow
            .try_ask("POST", "/api/v2/connections", Some(&body));
        if there == Err(409) {
            let path = format!("/api/v2/connections/{id}");
            self.airflow.ask("PATCH", &path, Some(&body));
        } else {
            there.unwrap();
        }
    }

    /// Says what a runner is.
    pub fn runner(self, program: &Path) {
        let name = format!("runner-{}", self.number);
        let link = self.airflow.folder().join(name);
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(program, link).unwrap();
    }
}
