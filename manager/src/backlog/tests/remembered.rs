//! Tests of what is remembered of a queue between looks, and of what is asked to know more.

use air_protocol::approval::Rules;

use super::*;

#[test]
fn the_age_of_records_is_looked_at_once_a_minute() {
    let mut backlog = Backlog::new(job());
    assert!(backlog.is_time_to_expire(NOW));
    backlog.begin(0, 0, NOW);
    let sooner = NOW.after(EXPIRY_EVERY - Duration::from_millis(1));
    assert!(
        !backlog.is_time_to_expire(sooner),
        "however often it is read anew"
    );
    assert!(backlog.is_time_to_expire(NOW.after(EXPIRY_EVERY)));
    assert!(!backlog.is_time_to_expire(NOW.after(EXPIRY_EVERY)));
    backlog.expire_again();
    assert!(
        backlog.is_time_to_expire(NOW.after(EXPIRY_EVERY)),
        "more may be left"
    );
}

#[test]
fn other_rules_tell_nothing_again_and_make_no_look_due() {
    let rules = |text: &str| Rules::of(&air_protocol::codec::decode_spec(text.as_bytes()).unwrap());
    let messages = || vec![message(1, "b", 1, &["a"])];
    let mut backlog = backlog(messages(), &[]);
    assert!(backlog.is_time_to_expire(NOW));
    assert_eq!(backlog.newly_blocked().len(), 1);
    backlog.heed(rules(r#"{"approval": [{"command": "tr*"}]}"#));
    backlog.admit(messages(), &lasts(&[], 100), 0, NOW);
    assert!(!backlog.is_time_to_expire(NOW), "it was done just now");
    assert!(
        backlog.newly_blocked().is_empty(),
        "that b waits was told before"
    );
}

#[test]
fn what_is_known_up_to_a_sequence_has_nothing_left_over_there() {
    let records = [(9, record("a", Status::Succeeded, 1))];
    let mut known = Backlog::new(job());
    let messages = vec![message(2, "b", 1, &[]), message(3, "a", 1, &[])];
    known.admit(messages, &lasts(&records, 100), 1, NOW);
    assert!(known.knows_to(2));
    assert!(!known.knows_to(3), "the message of a is left over");
    known.deleted(3);
    assert!(known.knows_to(3));
    assert!(!known.knows_to(4), "not read so far");
    known.admit(vec![], &lasts(&[], 100), 0, NOW);
    assert!(known.knows_to(4), "that was the end of the queue");
    known.expect_more();
    assert!(!known.knows_to(4));
    assert_eq!(known.len(), 1);
}

#[test]
fn a_record_leaves_the_message_over_that_it_consumed() {
    let of = |consumed| {
        let mut backlog = backlog(vec![message(3, "b", 1, &[])], &[]);
        let mut record = record("a", Status::Succeeded, 1);
        record.seq = Some(consumed);
        backlog.learn(9, &record, NOW);
        left(&backlog)
    };
    assert_eq!(of(2), [2], "it was seen, and is no task any more");
    assert!(of(3).is_empty(), "there stands a live task");
    assert!(of(4).is_empty(), "it is not read so far");
}

#[test]
fn what_tasks_need_is_wanted_until_they_have_run() {
    let mut backlog = backlog(vec![message(1, "b", 1, &["a", "k/x"])], &[]);
    let wanted = |backlog: &Backlog| backlog.wanted().collect::<Vec<_>>();
    let all = [(job(), id("a")), ("k".parse().unwrap(), id("x"))];
    backlog.learn(4, &record("a", Status::Succeeded, 1), NOW);
    assert_eq!(wanted(&backlog), all, "met or not");
    backlog.learn(5, &record("b", Status::Succeeded, 1), NOW);
    assert!(wanted(&backlog).is_empty());
}

#[test]
fn who_was_told_to_wait_is_remembered_while_it_may_be_read_again() {
    let mut backlog = backlog(vec![message(1, "b", 1, &["a"])], &[]);
    assert_eq!(backlog.newly_blocked().len(), 1);
    backlog.begin(0, 0, NOW.after(ANEW_EVERY));
    assert!(backlog.newly_blocked().is_empty() && backlog.told.contains(&1));
    backlog.admit(vec![message(1, "b", 1, &["a"])], &lasts(&[], 100), 0, NOW);
    assert!(backlog.newly_blocked().is_empty(), "told before");
    backlog.learn(4, &record("b", Status::Cancelled, 1), NOW);
    assert!(backlog.newly_blocked().is_empty() && backlog.told.is_empty());
}

#[test]
fn the_last_records_of_all_tasks_and_needs_are_asked_for() {
    let messages = vec![message(1, "b", 1, &["a", "k/x"]), message(2, "c", 1, &[])];
    let of = |job: &str, task: &str| -> TaskRef { (job.parse().unwrap(), id(task)) };
    let mut known = Backlog::new(job());
    let all = [of("j", "a"), of("j", "b"), of("j", "c"), of("k", "x")];
    assert_eq!(known.asks(&messages), all);
    known.admit(messages, &lasts(&[], 100), 0, NOW);
    let foreign = [of("k", "x")];
    assert_eq!(
        known.asks_again(),
        foreign,
        "its own it learns from records"
    );
    assert_eq!(known.known_to(), 0);
    known.learn(8, &record("c", Status::Succeeded, 1), NOW);
    assert_eq!(
        (known.known_to(), known.len()),
        (8, 2),
        "b, and what c left"
    );
}
