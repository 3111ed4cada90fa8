//! The Airflow that was started for the tests: its REST API as a person asks it, and a DAG for each test.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};

use air_tests::conformance::Ground;
use serde_json::{Value, json};

use crate::door;

/// The folder of the Airflow, as its script was told.
pub(crate) fn folder() -> PathBuf {
    std::env::var_os("AIR_AIRFLOW")
        .expect("run by `cargo xtask test --all`")
        .into()
}

/// The file with the password of the user `admin`.
pub(crate) fn password_file() -> PathBuf {
    let file = folder().join("password");
    std::fs::write(&file, "admin\n").unwrap();
    file
}

fn port() -> u16 {
    let text = std::fs::read_to_string(folder().join("api_port")).unwrap();
    text.trim().parse().unwrap()
}

/// Asks Airflow; it must say yes.
pub(crate) fn ask(method: &str, path: &str, body: Option<&Value>) -> Value {
    try_ask(method, path, body).unwrap_or_else(|status| panic!("{method} {path}: {status}"))
}

/// Asks Airflow; gives the status where it says no.
pub(crate) fn try_ask(method: &str, path: &str, body: Option<&Value>) -> Result<Value, u16> {
    let who = json!({ "username": "admin", "password": "admin" });
    let given = curl("POST", "/auth/token", None, Some(&who))?;
    curl(method, path, given["access_token"].as_str(), body)
}

fn curl(method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> Result<Value, u16> {
    let url = format!("http://127.0.0.1:{}{path}", port());
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
    curl.args(["--data-binary", "@-", &url]);
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
pub(crate) struct Slot {
    number: usize,
    /// The port of the door before Airflow.
    pub(crate) port: u16,
}

impl Slot {
    /// That of a test: the same one whenever it asks.
    pub(crate) fn of(ground: &Ground) -> Self {
        static ALL: OnceLock<Mutex<HashMap<PathBuf, Slot>>> = OnceLock::new();
        let mut all = ALL.get_or_init(Mutex::default).lock().unwrap();
        let number = all.len();
        *all.entry(ground.folder().to_owned())
            .or_insert_with(|| Self {
                number,
                port: door::open(ground.door(), port()),
            })
    }

    pub(crate) fn dag(self) -> String {
        format!("air_runner_{}", self.number)
    }

    pub(crate) fn path(self) -> String {
        format!("/api/v2/dags/{}", self.dag())
    }

    /// Leads runners to NATS.
    pub(crate) fn connect(self, nats: &str) {
        let id = format!("air_{}", self.number);
        let body = json!({ "connection_id": id, "conn_type": "air_executor", "host": nats });
        let there = try_ask("POST", "/api/v2/connections", Some(&body));
        if there == Err(409) {
            ask("PATCH", &format!("/api/v2/connections/{id}"), Some(&body));
        } else {
            there.unwrap();
        }
    }

    /// Says what a runner is.
    pub(crate) fn runner(self, program: &Path) {
        let link = folder().join(format!("runner-{}", self.number));
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(program, link).unwrap();
    }
}
