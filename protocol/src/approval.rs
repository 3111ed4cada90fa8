//! What waits for a person: rules by which tasks need one, and what was asked and answered.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::cost::Usd;
use crate::limits::{APPROVAL_PATTERN_CHARS_MAX, APPROVAL_RULES_MAX};
use crate::quote::quote;
use crate::record::Record;
use crate::spec::Spec;
use crate::task::{Approval, Task, Work};
use crate::time::Time;

mod replied;

pub use replied::{Unfit, rejected, replied};

/// A rule of a job by which a task waits for a person before it runs. Exactly one of its fields is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum ApprovalRule {
    /// Tasks for an agent that may cost more than this, in US dollars, or that have no limit.
    AboveUsd(Usd),
    /// Tasks whose `cwd`, or whose workspace's `repo`, matches this pattern (`*` for any text).
    Path(String),
    /// Tasks whose `run` line or `exec` words match this pattern (`*` for any text).
    Command(String),
}

/// What a parked task waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "for", rename_all = "lowercase")]
pub enum Waits {
    /// That a person approves it (`airx approve`, `airx reject`).
    Approval {
        /// Why it needs one.
        reason: String,
    },
    /// That a person answers (`airx answer`).
    Answer {
        /// What the agent asks.
        question: String,
    },
}

impl Waits {
    /// Why, or what is asked: as people read it.
    pub fn text(&self) -> &str {
        match self {
            Self::Approval { reason } => reason,
            Self::Answer { question } => question,
        }
    }
}

/// What a person said to a parked task; kept in all its later records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reply {
    /// What the agent had asked; none where the task was approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// The answer, or the note that came with the approval.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// When it was said.
    pub at: Time,
}

impl Reply {
    /// Whether it approves the task.
    pub fn approves(&self) -> bool {
        self.question.is_none()
    }
}

/// Why a person must approve a task before it runs; none where nobody must, or somebody has. `last` is the task's last
/// record: an approval holds for all further attempts.
pub fn needs_approval(task: &Task, spec: &Spec, last: Option<&Record>) -> Option<String> {
    Rules::of(spec).needs(task, last)
}

/// What decides, beside the task, whether a person must approve it: remembered with what was decided by it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    rules: Vec<ApprovalRule>,
    usd: Option<Usd>,
}

impl Rules {
    /// Those of a spec.
    pub fn of(spec: &Spec) -> Self {
        let usd = spec.claude.as_ref();
        Self {
            rules: spec.approval.clone(),
            usd: usd.and_then(|claude| claude.max_budget_usd),
        }
    }

    /// As [`needs_approval`] says.
    pub fn needs(&self, task: &Task, last: Option<&Record>) -> Option<String> {
        if last.is_some_and(Record::is_approved) || matches!(task.work, Work::Fanout(_)) {
            return None;
        }
        if let Some(Approval::Required) = task.approval {
            return Some("the task asks for approval".to_owned());
        }
        (self.rules.iter()).find_map(|rule| rule.reason(task, self.usd))
    }
}

/// A rule that could never hold, or is too long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalFault {
    /// Too many.
    #[error("`approval` has {0} rules, but {APPROVAL_RULES_MAX} are the most")]
    Rules(usize),
    /// No pattern.
    #[error("`approval` has an empty pattern; write one such as `*terraform apply*`")]
    Empty,
    /// A long one.
    #[error(
        "`approval` has a pattern of {0} characters, but {APPROVAL_PATTERN_CHARS_MAX} are the most"
    )]
    Long(usize),
}

/// Checks the rules of a spec.
///
/// # Errors
/// The first that is wrong.
pub(crate) fn check(rules: &[ApprovalRule]) -> Result<(), ApprovalFault> {
    if rules.len() > APPROVAL_RULES_MAX {
        return Err(ApprovalFault::Rules(rules.len()));
    }
    for rule in rules {
        let (ApprovalRule::Path(pattern) | ApprovalRule::Command(pattern)) = rule else {
            continue;
        };
        if pattern.trim().is_empty() {
            return Err(ApprovalFault::Empty);
        }
        let chars = pattern.chars().count();
        if chars > APPROVAL_PATTERN_CHARS_MAX {
            return Err(ApprovalFault::Long(chars));
        }
    }
    Ok(())
}

impl ApprovalRule {
    /// Why a task needs a person by this rule; `usd` is what an agent may cost that does not say.
    fn reason(&self, task: &Task, usd: Option<Usd>) -> Option<String> {
        match self {
            Self::AboveUsd(most) => {
                let Work::Claude(claude) = &task.work else {
                    return None;
                };
                match claude.max_budget_usd.or(usd) {
                    Some(usd) if usd <= *most => None,
                    Some(usd) => Some(format!(
                        "it may cost {usd}; approval is needed above {most}"
                    )),
                    None => Some(format!(
                        "it has no `max_budget_usd`; approval is needed above {most}"
                    )),
                }
            }
            Self::Path(pattern) => {
                let path = paths(task)
                    .find(|path| matches(pattern, path) || matches(pattern, &plain(path)))?;
                Some(format!(
                    "it works in `{}`; approval is needed for `{pattern}`",
                    quote(path)
                ))
            }
            Self::Command(pattern) => {
                let command = match &task.work {
                    Work::Run(line) => Cow::Borrowed(line.as_str()),
                    Work::Exec(argv) => Cow::Owned(argv.join(" ")),
                    Work::Claude(_) | Work::Fanout(_) => return None,
                };
                matches(pattern, &command).then(|| {
                    format!(
                        "it runs `{}`; approval is needed for `{pattern}`",
                        quote(&command)
                    )
                })
            }
        }
    }
}

/// Folders in which a task works.
fn paths(task: &Task) -> impl Iterator<Item = &str> {
    let space = match &task.work {
        Work::Claude(claude) => claude.workspace.as_ref().map(|space| space.repo.as_str()),
        Work::Run(_) | Work::Exec(_) | Work::Fanout(_) => None,
    };
    task.cwd.as_deref().into_iter().chain(space)
}

/// A path without `.`, `..` and repeated `/`, as far as its text tells.
fn plain(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let root = if path.starts_with('/') { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}

/// Whether a text is what a pattern says, `*` standing for any text. In time that grows with text and stars, not
/// with their powers.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut left) = text.strip_prefix(first) else {
        return false;
    };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(all) = left.strip_suffix(last) else {
        return false;
    };
    left = all;
    for part in middle.split('*') {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claude::{Claude, Workspace};
    use crate::record::Status;
    use crate::spec::ClaudeDefaults;

    fn spec(rules: &str) -> Spec {
        serde_json::from_str(&format!(r#"{{"approval": {rules}}}"#)).unwrap()
    }

    fn run(line: &str) -> Task {
        Task::new(Work::Run(line.into()))
    }

    fn claude(usd: Option<f64>) -> Task {
        let mut claude = Claude::new("x");
        claude.max_budget_usd = usd.map(|usd| Usd::try_from(usd).unwrap());
        Task::new(Work::Claude(Box::new(claude)))
    }

    #[test]
    fn what_is_waited_for_is_told_in_the_words_that_were_said() {
        let (reason, question) = ("it costs".to_owned(), "which one?".to_owned());
        assert_eq!(Waits::Approval { reason }.text(), "it costs");
        assert_eq!(Waits::Answer { question }.text(), "which one?");
    }

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, text) in [
            ("a", "a"),
            ("*", ""),
            ("*", "a\nb"),
            ("a*", "a"),
            ("a*c", "abc"),
            ("*b*", "abc"),
            ("a**c", "ac"),
            ("a*b*c", "aXbYbZc"),
            ("/srv/*", "/srv/x"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("a", "ab"),
            ("a*c", "abcd"),
            ("a*a", "a"),
            ("*ab*ba*", "aba"),
            ("", "a"),
            ("*b", "ba"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_task_asks_or_its_job_does() {
        let mut task = run("true");
        assert_eq!(needs_approval(&task, &Spec::default(), None), None);
        task.approval = Some(Approval::Required);
        assert!(needs_approval(&task, &Spec::default(), None).is_some());
        let by = |rules: &str, task: &Task| needs_approval(task, &spec(rules), None);
        let deploy = r#"[{"path": "/none"}, {"command": "*deploy*"}]"#;
        let reason = by(deploy, &run("make deploy")).unwrap();
        assert!(
            reason.contains("make deploy") && reason.contains("*deploy*"),
            "{reason}"
        );
        assert_eq!(by(deploy, &run("make test")), None);
        let argv = ["make".to_owned(), "deploy".to_owned()];
        assert!(
            by(
                r#"[{"command": "make deploy"}]"#,
                &Task::new(Work::Exec(argv.into()))
            )
            .is_some()
        );
        assert_eq!(by(deploy, &claude(None)), None);
    }

    #[test]
    fn an_agent_needs_approval_above_an_amount_or_without_a_limit() {
        let mut spec = spec(r#"[{"above_usd": 1}]"#);
        let needs = |spec: &Spec, usd| needs_approval(&claude(usd), spec, None).is_some();
        assert!(needs(&spec, None) && needs(&spec, Some(1.01)));
        assert!(!needs(&spec, Some(1.0)));
        assert_eq!(needs_approval(&run("true"), &spec, None), None);
        spec.claude = Some(ClaudeDefaults {
            max_budget_usd: Some(Usd::from_micros(500_000)),
            ..ClaudeDefaults::default()
        });
        assert!(!needs(&spec, None) && needs(&spec, Some(2.0)));
    }

    #[test]
    fn a_folder_is_meant_however_it_is_written() {
        let spec = spec(r#"[{"path": "/srv/prod*"}]"#);
        let needs = |cwd: &str| {
            let mut task = run("true");
            task.cwd = Some(cwd.into());
            needs_approval(&task, &spec, None).is_some()
        };
        for cwd in [
            "/srv/prod",
            "/srv/prod/x",
            "/srv//prod",
            "/srv/./x/../prod",
            "/srv/prod/../x",
        ] {
            assert!(needs(cwd), "{cwd}");
        }
        assert!(!needs("/srv/test") && !needs("srv/prod"));
        let mut claude = Claude::new("x");
        claude.workspace = Some(Workspace {
            repo: "/srv/prod.git".into(),
            reference: None,
            from: None,
        });
        let task = Task::new(Work::Claude(Box::new(claude)));
        assert!(needs_approval(&task, &spec, None).is_some());
    }

    #[test]
    fn who_was_approved_is_not_asked_for_again() {
        let spec = spec(r#"[{"command": "*"}]"#);
        let mut last = Record::new("t".parse().unwrap(), Status::Reset, 1, Time::default());
        let answer = Reply {
            question: Some("why?".into()),
            text: "so".into(),
            at: Time::default(),
        };
        let approval = Reply {
            question: None,
            ..answer.clone()
        };
        last.replies = vec![answer];
        assert!(
            needs_approval(&run("x"), &spec, Some(&last)).is_some(),
            "an answer is no approval"
        );
        last.replies.push(approval);
        assert_eq!(needs_approval(&run("x"), &spec, Some(&last)), None);
    }

    #[test]
    fn rules_that_say_nothing_are_refused() {
        let check = |rules: &str| spec(rules).check().is_ok();
        assert!(check(r#"[{"command": "*"}, {"above_usd": 0}]"#));
        assert!(!check(r#"[{"command": " "}]"#) && !check(r#"[{"path": ""}]"#));
        let rule = |chars: usize| format!(r#"{{"path": "{}"}}"#, "x".repeat(chars));
        assert!(check(&format!("[{}]", rule(APPROVAL_PATTERN_CHARS_MAX))));
        assert!(!check(&format!(
            "[{}]",
            rule(APPROVAL_PATTERN_CHARS_MAX + 1)
        )));
        let many = |count: usize| format!("[{}]", vec![rule(1); count].join(","));
        assert!(check(&many(APPROVAL_RULES_MAX)) && !check(&many(APPROVAL_RULES_MAX + 1)));
    }
}
