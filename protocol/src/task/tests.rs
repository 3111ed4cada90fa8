//! Tests of tasks: their rules, needs, retries and the pages of a fan-out.

use super::*;

#[test]
fn delays_double_up_to_the_most() {
    let retry = Retry::default();
    let delays: Vec<_> = (1..=10).map(|n| retry.delay(n, 0).as_secs()).collect();
    assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
    assert_eq!(retry.delay(1, 255), Duration::from_millis(750));
    assert_eq!(retry.delay(u32::MAX, 0), BACKOFF_MAX_DEFAULT);
    let ages = Some(Span(Duration::MAX));
    let ages = Retry {
        backoff: ages,
        max_backoff: ages,
        ..retry
    };
    assert!(ages.delay(9, 255) > BACKOFF_MAX_DEFAULT);
}

#[test]
fn needs_are_short_where_they_can_be() {
    let needs: Vec<Need> =
        serde_json::from_str(r#"["a", "j/b", {"task": "c", "when": "done"}]"#).unwrap();
    assert_eq!(needs[1].job, Some("j".parse().unwrap()));
    assert_eq!(needs[2].when, When::Done);
    assert_eq!(
        serde_json::to_string(&needs).unwrap(),
        r#"["a","j/b",{"task":"c","when":"done"}]"#
    );
}

#[test]
fn each_rule_can_be_broken() {
    let broken = |change: fn(&mut Task)| {
        let mut task = Task::new(Work::Run("true".into()));
        task.id = Some("me".parse().unwrap());
        assert_eq!(task.check(), Ok(()));
        change(&mut task);
        task.check().unwrap_err().to_string()
    };
    assert!(broken(|t| t.v = 2).contains("update"));
    assert!(broken(|t| t.work = Work::Run(" ".into())).contains("empty"));
    assert!(broken(|t| t.work = Work::Exec(vec![])).contains("empty"));
    assert!(broken(|t| t.work = Work::Exec(vec!["a\0".into()])).contains("NUL"));
    assert!(broken(|t| t.work = Work::Run("a\0".into())).contains("NUL"));
    assert!(broken(|t| t.cwd = Some("/\0".into())).contains("NUL"));
    assert!(broken(|t| drop(t.env.insert("A=".into(), String::new()))).contains("A="));
    assert!(broken(|t| drop(t.env.insert("AIR_JOB".into(), String::new()))).contains("AIR_"));
    assert!(broken(|t| drop(t.env.insert("A".into(), "\0".into()))).contains("NUL"));
    assert!(broken(|t| t.needs = vec!["me".parse().unwrap()]).contains("itself"));
    assert!(broken(|t| t.needs = vec!["a".parse().unwrap(); 1001]).contains("1000"));
    assert!(
        broken(|t| {
            t.labels = (0..65).map(|n| (n.to_string(), String::new())).collect();
        })
        .contains("64")
    );
}

#[test]
fn what_is_at_the_limit_breaks_no_rule() {
    let mut task = Task::new(Work::Exec(vec!["true".into(), String::new()]));
    task.id = Some("me".parse().unwrap());
    task.needs = vec!["j/me".parse().unwrap(); TASK_NEEDS_MAX];
    task.labels = (0..LABELS_MAX)
        .map(|n| (n.to_string(), String::new()))
        .collect();
    assert_eq!(task.check(), Ok(()), "the task of another job is another");
    task.env.insert("A".into(), "1".into());
    assert_eq!(task.check(), Ok(()));
    for name in ["", "A=B", "A\0", "AIR_", "AIR_JOB"] {
        assert!(!is_env_name(name), "{name}");
    }
    assert!(is_env_name("AIR") && is_env_name("A B"));
}

#[test]
fn a_need_of_another_task_is_none_of_itself() {
    let mut task = Task::new(Work::Run("true".into()));
    task.needs = vec!["a".parse().unwrap()];
    assert_eq!(task.check(), Ok(()), "a task without an id");
    task.id = Some("b".parse().unwrap());
    assert_eq!(task.check(), Ok(()));
}

#[test]
fn a_task_of_no_version_is_of_this_one() {
    let task: Task = serde_json::from_str(r#"{"run":"true"}"#).unwrap();
    assert_eq!((task.v, task.id_at(7).as_str()), (VERSION, "_7"));
    let task: Task = serde_json::from_str(r#"{"run":"true","id":"a"}"#).unwrap();
    assert_eq!(task.id_at(7).as_str(), "a");
}

#[test]
fn work_has_a_summary_and_pages_their_blobs() {
    assert_eq!(Work::Run("one\ntwo".into()).summary(), "one");
    assert_eq!(Work::Exec(vec!["a".into(), "b".into()]).summary(), "a b");
    let fanout = |page, pages| Fanout {
        run: Uuid::nil(),
        parent: "j/t".into(),
        page,
        pages,
    };
    let work = Work::Fanout(fanout(1, 3));
    assert_eq!(work.summary(), "page 1 of 3 of the sub-tasks of j/t");
    let run = Uuid::nil();
    let wanted = [format!("{run}.1"), format!("{run}.2")];
    assert_eq!(Task::new(work).blobs(), wanted);
    assert!(Task::new(Work::Run("true".into())).blobs().is_empty());
    let most = fanout(1, u32::MAX).blobs().count();
    assert_eq!(most, PAGES_MAX as usize, "whatever a message says");
}

#[test]
fn wishes_are_completed_by_defaults() {
    let span = |seconds| Some(Span(Duration::from_secs(seconds)));
    let defaults = Retry {
        max: Some(7),
        backoff: span(2),
        max_backoff: span(3),
    };
    assert_eq!(Retry::default().or(&defaults), defaults);
    let own = Retry {
        max: Some(0),
        backoff: span(5),
        max_backoff: span(6),
    };
    assert_eq!(own.or(&defaults), own);
    assert_eq!(own.failures_max(), 1, "the first attempt is the last");
    assert_eq!(Retry::default().failures_max(), RETRIES_DEFAULT + 1);
    let half = Retry::default().delay(3, 128);
    assert_eq!(
        half,
        Duration::from_secs(4) - Duration::from_secs(128) / 255
    );
}
