//! What the end of a program means for its task. Reads nothing but the files that the task left.

use air_protocol::agent::AgentRun;
use air_protocol::approval::{Reply, Waits};
use air_protocol::cost::Cost;
use air_protocol::fate::Outcome;
use air_protocol::limits::REPLIES_MAX;
use air_protocol::record::error_text;
use air_protocol::time::Time;
use serde_json::Value;

use crate::brake::Why;
use crate::execute::workdir::Workdir;
use crate::execute::{End, Ended, SpawnProblem};
use crate::files;
use crate::subtasks::Family;

/// Exit code by which a task asks to be run later (`EX_TEMPFAIL`).
pub(crate) const EXIT_LATER: i32 = 75;

/// What became of an attempt.
#[derive(Debug)]
pub struct Report {
    /// What it means for the task.
    pub outcome: Outcome,
    /// What went wrong.
    pub error: Option<String>,
    /// Exit code.
    pub exit: Option<i32>,
    /// Signal that ended the program.
    pub signal: Option<i32>,
    /// The result.
    pub output: Option<Value>,
    /// The last output.
    pub tail: Option<String>,
    /// When the program started.
    pub started: Option<Time>,
    /// CPU time, in milliseconds.
    pub cpu_ms: Option<u64>,
    /// Largest resident set, in KiB.
    pub max_rss_kb: Option<u64>,
    /// What the task waits for.
    pub waits: Option<Waits>,
    /// What an agent's work took.
    pub cost: Option<Cost>,
    /// What an agent's attempt was, and what it left.
    pub agent: Option<AgentRun>,
    /// Sub-tasks.
    pub family: Family,
}

impl Report {
    /// Nothing but an outcome.
    pub fn new(outcome: Outcome) -> Self {
        Self {
            outcome,
            error: None,
            exit: None,
            signal: None,
            output: None,
            tail: None,
            started: None,
            cpu_ms: None,
            max_rss_kb: None,
            waits: None,
            cost: None,
            agent: None,
            family: Family::default(),
        }
    }

    /// The same attempt, come to another end after all: nothing of its results exists, but what it took.
    #[must_use]
    pub fn instead(self, outcome: Outcome, error: &str) -> Self {
        Self {
            outcome,
            error: Some(error_text(error)),
            output: None,
            waits: None,
            family: Family::default(),
            ..self
        }
    }

    /// The same report; where the attempt failed and the kernel has killed a process of it for this limit of memory, in bytes,
    /// that is why.
    #[must_use]
    pub(crate) fn of_memory(mut self, exceeded: Option<u64>) -> Self {
        if let (Outcome::Failed, Some(bytes)) = (self.outcome, exceeded) {
            self.error = Some(format!(
                "memory limit of {} exceeded: the kernel ended a process of the task; let it use less, or give it more by `resources`",
                Bytes(bytes)
            ));
        }
        self
    }
}

/// A number of bytes as people read it.
struct Bytes(u64);

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
        let whole = |(_, power): &(&str, u32)| self.0.trailing_zeros() >= *power;
        match units.into_iter().find(whole) {
            Some((unit, power)) => write!(f, "{} {unit}", self.0 >> power),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

/// The report of a program that has ended; none where the attempt is not ours to settle.
/// Sub-tasks are not looked at yet: only a report that says `Succeeded` may have some.
pub(crate) fn judge(
    ended: Ended,
    why: Option<Why>,
    workdir: &Workdir,
    started: Time,
    now: Time,
) -> Option<Report> {
    let mut report = Report {
        tail: tail(&ended.tail),
        started: Some(started),
        cpu_ms: Some(ended.cpu_ms),
        max_rss_kb: Some(ended.max_rss_kb),
        ..Report::new(Outcome::Failed)
    };
    let exceeded = ended.memory_exceeded;
    match ended.end {
        End::Exited(code) => {
            return Some(of_exit(report, code, workdir, now).of_memory(exceeded));
        }
        End::Signalled(number) => {
            report.signal = Some(number);
            let name = nix::sys::signal::Signal::try_from(number);
            let name = name.map_or("unknown", |signal| signal.as_str());
            report.error = Some(format!(
                "signal {number} ({name}) ended the program; see its output, and the host's log for a lack of memory"
            ));
            report = report.of_memory(exceeded);
        }
        End::TimedOut => {
            let text = "its time was over; make it faster, or give the task a longer `timeout`";
            report.error = Some(text.to_owned());
        }
        End::NotStarted(problem) => {
            report.started = None;
            report.outcome = not_started(&problem);
            report.error = Some(error_text(&chain(&problem)));
        }
        End::Stopped(_) => match why {
            Some(Why::Cancelled) => {
                report.outcome = Outcome::Cancelled;
                report.error = Some("a user cancelled the job".to_owned());
            }
            Some(Why::Drain) => {
                report.outcome = Outcome::Later(None);
                report.error = Some("the runner was asked to end; the task runs again".to_owned());
            }
            Some(Why::Over | Why::Lost) | None => return None,
        },
    }
    Some(report)
}

/// The same report, parked where an attempt that succeeded has left a question in its folder: then it waits for the
/// answer, and nothing else of its results exists.
#[must_use]
pub(crate) fn asked(report: Report, workdir: &Workdir, replies: &[Reply]) -> Report {
    if report.outcome != Outcome::Succeeded {
        return report;
    }
    let question = match files::question(&workdir.question()) {
        Ok(Some(question)) => question,
        Ok(None) => return report,
        Err(text) => return report.instead(Outcome::FailedForGood, &text),
    };
    if replies.len() >= REPLIES_MAX {
        let text = format!(
            "it asks once more, but people have replied {REPLIES_MAX} times, which is the most; \
             say more in the task itself"
        );
        return report.instead(Outcome::FailedForGood, &text);
    }
    Report {
        waits: Some(Waits::Answer { question }),
        error: None,
        ..report.instead(Outcome::Parked, "")
    }
}

fn of_exit(mut report: Report, code: i32, workdir: &Workdir, now: Time) -> Report {
    report.exit = Some(code);
    let output = files::output(&workdir.output());
    match code {
        0 => match output {
            Ok(output) => {
                report.output = output;
                report.outcome = Outcome::Succeeded;
                report
            }
            Err(text) => report.instead(Outcome::FailedForGood, &text),
        },
        EXIT_LATER => match files::retry_at(&workdir.retry_at(), now) {
            Ok(at) => {
                report.error = Some("it asked to be run later (exit code 75)".to_owned());
                report.outcome = Outcome::Later(at);
                report
            }
            Err(text) => report.instead(Outcome::FailedForGood, &text),
        },
        _ => {
            report.error = Some(format!(
                "the program left with exit code {code}; see its output"
            ));
            // What it wrote may tell why; what is no JSON is not its trouble now.
            report.output = output.unwrap_or_default();
            report
        }
    }
}

/// Whether another try may help.
fn not_started(problem: &SpawnProblem) -> Outcome {
    match problem {
        SpawnProblem::NoProgram
        | SpawnProblem::Unpassable { .. }
        | SpawnProblem::TooLong { .. } => Outcome::FailedForGood,
        // Another host, or this one a little later, may have what is missing.
        SpawnProblem::WorkingFolder { .. }
        | SpawnProblem::NotFound { .. }
        | SpawnProblem::NotExecutable { .. }
        | SpawnProblem::Host { .. } => Outcome::Failed,
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The last output as text, from its first whole character on.
fn tail(bytes: &[u8]) -> Option<String> {
    let is_inside = |byte: &&u8| **byte & 0b1100_0000 == 0b1000_0000;
    let cut = bytes.iter().take(3).take_while(is_inside).count();
    let text = String::from_utf8_lossy(&bytes[cut..]);
    (!text.is_empty()).then(|| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execute::Stop;

    fn end_of(end: End, why: Option<Why>) -> Option<Report> {
        let workdir = Workdir::create(&uuid::Uuid::now_v7().to_string(), b"", b"").unwrap();
        let ended = Ended {
            end,
            cpu_ms: 1,
            max_rss_kb: 1,
            memory_exceeded: None,
            tail: "\u{fc}x".as_bytes()[1..].to_vec(),
            output_bytes: 0,
            output_dropped: 0,
        };
        judge(ended, why, &workdir, Time::default(), Time::default())
    }

    #[test]
    fn each_end_has_its_outcome() {
        let outcome = |end, why| end_of(end, why).map(|report| report.outcome);
        assert_eq!(outcome(End::Exited(0), None), Some(Outcome::Succeeded));
        assert_eq!(outcome(End::Exited(1), None), Some(Outcome::Failed));
        assert_eq!(outcome(End::Exited(75), None), Some(Outcome::Later(None)));
        assert_eq!(outcome(End::Signalled(9), None), Some(Outcome::Failed));
        assert_eq!(outcome(End::TimedOut, None), Some(Outcome::Failed));
        assert_eq!(
            outcome(End::NotStarted(SpawnProblem::NoProgram), None),
            Some(Outcome::FailedForGood)
        );
        let stopped = |why| outcome(End::Stopped(Stop::Cancel), Some(why));
        assert_eq!(stopped(Why::Cancelled), Some(Outcome::Cancelled));
        assert_eq!(stopped(Why::Drain), Some(Outcome::Later(None)));
        assert_eq!(stopped(Why::Over), None);
        assert_eq!(stopped(Why::Lost), None);
        let report = end_of(End::Signalled(9), None).unwrap();
        assert!(report.error.unwrap().contains("SIGKILL"));
        assert_eq!(report.tail.as_deref(), Some("x"));
    }

    #[test]
    fn a_process_killed_for_its_memory_is_why_an_attempt_failed() {
        let text = |outcome, bytes| {
            Report::new(outcome)
                .of_memory(bytes)
                .error
                .unwrap_or_default()
        };
        for (bytes, told) in [
            (64 << 20, "64 MiB"),
            (3 << 30, "3 GiB"),
            (20_000, "20000 bytes"),
            (20 << 10, "20 KiB"),
        ] {
            let text = text(Outcome::Failed, Some(bytes));
            let told = format!("memory limit of {told} exceeded: ");
            assert!(text.starts_with(&told), "{text}");
        }
        assert_eq!(text(Outcome::Failed, None), "");
        assert_eq!(text(Outcome::Succeeded, Some(1)), "");
        assert_eq!(text(Outcome::Later(None), Some(1)), "");
    }

    /// The report of an exit, with what the program left in its files.
    fn of_files(code: i32, output: &str, retry_at: &str) -> Report {
        let workdir = Workdir::create(&uuid::Uuid::now_v7().to_string(), b"", b"").unwrap();
        std::fs::write(workdir.output(), output).unwrap();
        std::fs::write(workdir.retry_at(), retry_at).unwrap();
        let mut report = Report::new(Outcome::Failed);
        report.family.count = 3;
        of_exit(report, code, &workdir, Time::default())
    }

    #[test]
    fn an_exit_takes_in_what_the_program_left() {
        let done = of_files(0, r#"{"a":1}"#, "");
        assert_eq!(done.output, Some(serde_json::json!({ "a": 1 })));
        assert_eq!((done.exit, done.outcome), (Some(0), Outcome::Succeeded));
        let failed = of_files(3, "7", "");
        assert_eq!((failed.exit, failed.outcome), (Some(3), Outcome::Failed));
        assert_eq!(failed.output, Some(serde_json::json!(7)));
        assert!(failed.error.unwrap().contains("exit code 3"));
        let failed = of_files(3, "{", "");
        assert_eq!((failed.output, failed.outcome), (None, Outcome::Failed));
        let later = of_files(75, "", "1970-01-02T00:00:00Z");
        let day = Time::from_millis(86_400_000);
        assert_eq!(later.outcome, Outcome::Later(Some(day)));
        assert!(later.error.unwrap().contains("75"));
    }

    #[test]
    fn a_question_parks_the_attempt_that_ends_well() {
        let workdir = Workdir::create(&uuid::Uuid::now_v7().to_string(), b"", b"").unwrap();
        let ended = |outcome, replies: &[Reply]| {
            let mut report = Report::new(outcome);
            report.output = Some(Value::Null);
            asked(report, &workdir, replies)
        };
        assert_eq!(ended(Outcome::Succeeded, &[]).outcome, Outcome::Succeeded);
        std::fs::write(workdir.question(), " which?\n").unwrap();
        let parked = ended(Outcome::Succeeded, &[]);
        assert_eq!((parked.outcome, &parked.output), (Outcome::Parked, &None));
        let question = "which?".to_owned();
        assert_eq!(parked.waits, Some(Waits::Answer { question }));
        assert_eq!(parked.error, None);
        assert_eq!(ended(Outcome::Failed, &[]).outcome, Outcome::Failed);
        let reply = Reply {
            question: None,
            text: String::new(),
            at: Time::default(),
        };
        let replies = vec![reply; REPLIES_MAX];
        let most = ended(Outcome::Succeeded, &replies[1..]);
        assert_eq!(most.outcome, Outcome::Parked);
        let more = ended(Outcome::Succeeded, &replies);
        assert_eq!(more.outcome, Outcome::FailedForGood);
        assert!(more.error.unwrap().contains("16 times"));
        for wrong in ["x".repeat(2001).into_bytes(), vec![0xff], vec![b'x'; 9000]] {
            std::fs::write(workdir.question(), wrong).unwrap();
            assert_eq!(
                ended(Outcome::Succeeded, &[]).outcome,
                Outcome::FailedForGood
            );
        }
    }

    #[test]
    fn another_end_takes_nothing_of_the_results_along() {
        let mut report = of_files(0, "7", "").instead(Outcome::Failed, "too large");
        assert_eq!((report.outcome, report.exit), (Outcome::Failed, Some(0)));
        assert_eq!(report.error.take().as_deref(), Some("too large"));
        assert!(report.output.is_none() && report.family.count == 0);
    }

    #[test]
    fn what_cannot_be_read_fails_for_good_and_queues_nothing() {
        for wrong in [of_files(0, "{", ""), of_files(75, "", "soon")] {
            assert_eq!(wrong.outcome, Outcome::FailedForGood);
            assert!(wrong.error.is_some() && wrong.output.is_none());
            assert_eq!(wrong.family.count, 0);
        }
    }

    #[test]
    fn another_try_helps_unless_the_program_is_wrong_by_itself() {
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let problem = SpawnProblem::Host {
            program: "sh".into(),
            doing: "fork",
            source: missing(),
        };
        let report = end_of(End::NotStarted(problem), None).unwrap();
        assert_eq!((report.outcome, report.started), (Outcome::Failed, None));
        let text = report.error.unwrap();
        assert!(text.ends_with(&format!(": {}", missing())), "{text}");
    }

    #[test]
    fn the_tail_begins_with_a_whole_character() {
        assert_eq!(tail(b""), None);
        assert_eq!(tail("\u{20ac}x".as_bytes()).as_deref(), Some("\u{20ac}x"));
        assert_eq!(tail(&"\u{20ac}x".as_bytes()[1..]).as_deref(), Some("x"));
        let report = end_of(End::TimedOut, None).unwrap();
        assert!(report.error.unwrap().contains("timeout"));
        assert_eq!((report.cpu_ms, report.max_rss_kb), (Some(1), Some(1)));
        assert_eq!(report.started, Some(Time::default()));
        let report = end_of(End::Signalled(9), None).unwrap();
        assert_eq!(report.signal, Some(9));
    }

    #[test]
    fn of_an_attempt_that_came_to_another_end_only_its_costs_are_left() {
        let mut report = Report::new(Outcome::Parked);
        report.waits = Some(Waits::Answer {
            question: "which?".into(),
        });
        report.output = Some(Value::Null);
        report.family.count = 1;
        report.cpu_ms = Some(3);
        let report = report.instead(Outcome::Cancelled, "why");
        assert_eq!(report.outcome, Outcome::Cancelled);
        assert_eq!(report.error.as_deref(), Some("why"));
        assert_eq!((report.waits, report.output), (None, None));
        assert_eq!((report.family.count, report.cpu_ms), (0, Some(3)));
    }
}
