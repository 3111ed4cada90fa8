//! The example `examples/fix-tests`, as it stands: a plan, an agent for each failure, a second round, a conflict, a report.

use std::path::Path;
use std::process::Command;

use air_protocol::record::Status;
use air_tests::{Request, Step, binary, ok};
use serde_json::{Value, json};

use super::workspace::{Stage, commit};
use super::{GUARD, ended};

const START: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../examples/fix-tests/start.sh"
);
const CODE: &str =
    "def add(a, b):\n    return a - b\n\n\ndef mul(a, b):\n    return a + b\n\n\nKNOWN = []\n";
const TESTS: &str = "import unittest, calc\n\n\nclass Calc(unittest.TestCase):\n    def test_add(self):\n        \
                     self.assertEqual(calc.add(2, 3), 5)\n\n    def test_mul(self):\n        self.assertEqual(calc.mul(2, 3), 6)\n\n    \
                     def test_good(self):\n        self.assertTrue(calc.add)\n";
const MERGED: &str = "KNOWN = [\"add\", \"mul\"]";

/// The file with the code, in the working tree of the agent that asks.
fn code(request: &Request) -> String {
    let system = request.body["system"].to_string();
    let folder = system.split("CWD: ").nth(1).unwrap();
    format!("{}/calc.py", folder.split("\\n").next().unwrap())
}

fn look() -> Step {
    Step::by(|request| Step::tool("Read", json!({ "file_path": code(request) })))
}

fn change(old: &'static str, new: &'static str) -> Step {
    Step::by(move |request| {
        let edit = json!({ "file_path": code(request), "old_string": old, "new_string": new });
        Step::tool("Edit", edit)
    })
}

/// Mends one function, and notes it at the same place as the other agent.
fn mend(old: &'static str, new: &'static str, note: &'static str) -> [Step; 5] {
    let run = Step::bash("git status");
    [
        look(),
        change(old, new),
        change("KNOWN = []", note),
        run,
        Step::text("mended"),
    ]
}

fn write_scripts(stage: &Stage) {
    let standin = &stage.agents.standin;
    let failures = ["add", "mul"].map(|name| {
        json!({ "test": format!("test_calc.Calc.test_{name}"), "why": format!("{name} is wrong") })
    });
    let plan = Step::tool("StructuredOutput", json!({ "failures": failures }));
    standin.script(
        "Run the tests of this repository",
        [
            Step::bash("python3 -m unittest"),
            plan,
            Step::text("planned"),
        ],
    );
    standin.script(
        "`test_calc.Calc.test_add` fails",
        mend("a - b", "a + b", "KNOWN = [\"add\"]"),
    );
    // The first try mends nothing, and the second is told what the test printed.
    let wrong = "return a + b\n\n\nKNOWN";
    let second = Step::by(
        move |request| match request.text().contains("AssertionError: 5 != 6") {
            true => change(wrong, "return a * b\n\n\nKNOWN"),
            false => Step::text("could not find it"),
        },
    );
    let note = change("KNOWN = []", "KNOWN = [\"mul\"]");
    let steps = [look(), second, note, Step::text("mended")];
    standin.script_of_each_session("`test_calc.Calc.test_mul` fails", steps);
    let branch = |request: &Request| {
        let text = request.text();
        let line = text.split("`git merge").nth(1).unwrap();
        format!("git merge{}", line.split('`').next().unwrap())
    };
    let conflict = "<<<<<<< HEAD\nKNOWN = [\"add\"]\n=======\nKNOWN = [\"mul\"]\n>>>>>>> origin/air/mend-2/test-calc-Calc-test-mul-2";
    let steps = [
        Step::by(move |request| Step::bash(&branch(request))),
        look(),
        change(conflict, MERGED),
        Step::bash("git add calc.py"),
        Step::bash("git commit --no-edit"),
        Step::text("merged"),
    ];
    standin.script("it stops with conflicts", steps);
}

#[tokio::test]
async fn failing_tests_are_mended_merged_and_counted() {
    let stage = Stage::start(1).await;
    let repo = stage.repo();
    std::fs::write(repo.join("calc.py"), CODE).unwrap();
    std::fs::write(repo.join("test_calc.py"), TESTS).unwrap();
    commit(&repo, "broken");
    write_scripts(&stage);
    start(&stage, &repo);
    let report = ended(&stage.agents, "mend", "report").await;
    assert_eq!(report.status, Status::Succeeded, "{report:?}");
    let output = report.output.unwrap();
    assert_eq!(output["passed"], true, "{output}");
    let told = |name: &str| -> Value {
        let all = output["results"].as_array().unwrap();
        let found = all
            .iter()
            .find(|one| one["name"].as_str().unwrap().ends_with(name));
        found.unwrap().clone()
    };
    for (name, rounds) in [("test_add", 1), ("test_mul", 2)] {
        let told = told(name);
        assert_eq!(
            (&told["merged"], &told["rounds"]),
            (&json!(true), &json!(rounds)),
            "{told}"
        );
        assert!(told["usd"].as_f64().unwrap() > 0.0, "{told}");
    }
    assert_eq!(output["branch"], "air/mend/merge-2");
    let code = super::workspace::git(&repo, &["show", "air/mend/merge-2:calc.py"]);
    assert!(code.contains("a * b") && code.contains(MERGED), "{code}");
    let total = spent(&stage).await;
    let usd = output["usd"].as_f64().unwrap() * 1e6;
    assert!((usd - total as f64).abs() < 10.0, "{usd} and {total}");
    stage.wait_clean().await;
}

/// Millionths of a dollar, as the jobs count them.
async fn spent(stage: &Stage) -> u64 {
    let mut sum = 0;
    for job in ["mend", "mend-1", "mend-2"] {
        let state = stage.agents.air.wait_completed_within(job, GUARD).await;
        sum += state.ledger.counters.cost.usd.micros();
    }
    sum
}

fn start(stage: &Stage, repo: &Path) {
    let mut start = Command::new(Path::new(START));
    let path = std::env::var("PATH").unwrap();
    let bin = binary("airx");
    let bin = bin.parent().unwrap().display();
    start
        .args([
            "mend",
            "--test",
            "python3 -m unittest",
            "--one",
            "python3 -m unittest {}",
        ])
        .args(["--keep", "test_calc.py", "--repo"])
        .arg(repo)
        .env("PATH", format!("{bin}:{path}"))
        .env("NATS_URL", stage.agents.air.server.url());
    ok(&mut start);
}
