//! The books: every task and attempt of an audit, as `airx export` lists them, added up and checked.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use crate::error::{Error, Result};

/// All jobs of an audit.
#[derive(Debug, Default)]
pub(super) struct Tally {
    rows: Vec<Row>,
    /// Ids of all runners.
    runners: HashSet<String>,
    /// Tasks that their records say were queued, with the first one.
    queued: u64,
    /// What is not as it should be.
    faults: Vec<String>,
}

/// One job.
#[derive(Debug, Default, Clone)]
struct Row {
    job: String,
    tasks: u64,
    runners: u64,
    attempts: u64,
    retries: u64,
}

impl Tally {
    /// Adds up exports.
    ///
    /// # Errors
    /// One is not what we know.
    pub(super) fn of(exports: &[Value]) -> Result<Self> {
        let mut tally = Self {
            queued: 1,
            ..Self::default()
        };
        for export in exports {
            let row = tally.row(export).ok_or_else(|| Error::Answer {
                command: "airx export".into(),
                what: export.to_string().chars().take(200).collect(),
            })?;
            tally.rows.push(row);
        }
        Ok(tally)
    }

    fn row(&mut self, export: &Value) -> Option<Row> {
        let mut row = Row {
            job: export["job"].as_str()?.to_owned(),
            ..Row::default()
        };
        for task in export["tasks"].as_array()? {
            row.tasks += 1;
            let name = format!("{}/{}", row.job, task["task"].as_str()?);
            let attempts = task["attempts"].as_array()?;
            for (attempt, number) in attempts.iter().zip(1_u64..) {
                row.attempts += 1;
                self.queued += attempt["subtasks"].as_u64()?;
                let runner = attempt["run"].as_str().unwrap_or("nobody");
                if self.runners.insert(runner.to_owned()) {
                    row.runners += 1;
                } else {
                    self.fault(format!(
                        "{name}: its runner {runner} ran another attempt too"
                    ));
                }
                let last = attempts.len() as u64 == number;
                let expected = if last { "succeeded" } else { "retrying" };
                row.retries += u64::from(!last);
                if attempt["attempt"] != number || attempt["status"] != expected {
                    let (is, status) = (&attempt["attempt"], &attempt["status"]);
                    self.fault(format!(
                        "{name}: record {number} is of attempt {is}, {status}"
                    ));
                }
            }
            if attempts.is_empty() {
                self.fault(format!("{name} never ran: {}", task["status"]));
            }
        }
        Some(row)
    }

    fn fault(&mut self, what: String) {
        self.faults.push(what);
    }

    fn sum(&self) -> Row {
        let mut sum = Row {
            job: format!("{} jobs", self.rows.len()),
            ..Row::default()
        };
        for row in &self.rows {
            sum.tasks += row.tasks;
            sum.runners += row.runners;
            sum.attempts += row.attempts;
            sum.retries += row.retries;
        }
        sum
    }

    /// Whether every task that was queued has run to its end, once.
    ///
    /// # Errors
    /// What is not so.
    pub(super) fn check(&self) -> Result<()> {
        let tasks = self.sum().tasks;
        let mut faults = self.faults.clone();
        if tasks != self.queued {
            let queued = self.queued;
            faults.push(format!("{queued} tasks were queued, and {tasks} are known"));
        }
        if faults.is_empty() {
            return Ok(());
        }
        let count = faults.len();
        faults.truncate(5);
        let faults = faults.join("\n  ");
        Err(Error::Demo(format!(
            "the books do not close, {count} faults:\n  {faults}"
        )))
    }

    /// The table at the end.
    pub(super) fn table(&self, took: Duration) -> String {
        let sum = self.sum();
        let mut text = format!(
            "{:<10} {:>7} {:>9} {:>9} {:>8}\n",
            "job", "tasks", "runners", "attempts", "retries"
        );
        for row in self.rows.iter().chain([&sum]) {
            let _ = writeln!(
                text,
                "{:<10} {:>7} {:>9} {:>9} {:>8}",
                row.job, row.tasks, row.runners, row.attempts, row.retries
            );
        }
        let seconds = took.as_secs_f64();
        let tasks = f64::from(u32::try_from(sum.tasks).unwrap_or(u32::MAX));
        let _ = write!(
            text,
            "{} tasks in {seconds:.1} s, {:.1} tasks/s, each attempt in a runner process of its own",
            sum.tasks,
            tasks / seconds
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn attempt(run: &str, number: u64, status: &str, subtasks: u64) -> Value {
        json!({ "run": run, "attempt": number, "status": status, "subtasks": subtasks })
    }

    fn export(attempts: &[Value]) -> Value {
        let first = [attempt("r0", 1, "succeeded", 1)];
        json!({ "job": "j", "tasks": [
            { "task": "a", "status": "succeeded", "attempts": first },
            { "task": "b", "status": "succeeded", "attempts": attempts },
        ]})
    }

    #[test]
    fn books_that_close() {
        let good = export(&[
            attempt("r1", 1, "retrying", 0),
            attempt("r2", 2, "succeeded", 0),
        ]);
        let tally = Tally::of(&[good]).unwrap();
        tally.check().unwrap();
        let table = tally.table(Duration::from_secs(2));
        assert!(
            table.contains("1 jobs           2         3         3        1\n"),
            "{table}"
        );
        assert!(table.contains("2 tasks in 2.0 s, 1.0 tasks/s"), "{table}");
    }

    #[test]
    fn books_that_do_not() {
        for (attempts, fault) in [
            (vec![], "never ran"),
            (vec![attempt("r1", 1, "failed", 0)], "\"failed\""),
            (vec![attempt("r1", 2, "succeeded", 0)], "of attempt 2"),
            (vec![attempt("r0", 1, "succeeded", 0)], "another attempt"),
            (
                vec![attempt("r1", 1, "succeeded", 1)],
                "3 tasks were queued, and 2",
            ),
            (
                vec![
                    attempt("r1", 1, "succeeded", 0),
                    attempt("r2", 1, "succeeded", 0),
                ],
                "2 faults",
            ),
        ] {
            let error = Tally::of(&[export(&attempts)])
                .unwrap()
                .check()
                .unwrap_err();
            assert!(error.to_string().contains(fault), "{error}");
        }
    }
}
