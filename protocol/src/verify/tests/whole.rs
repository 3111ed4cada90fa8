//! One pass over a history says of chains, counters and order what a look at the whole of it says.

use proptest::prelude::*;

use super::*;
use crate::invariants::{History, JobHistory, StoredRecord};

#[derive(Debug, Clone)]
struct Change {
    at: usize,
    kind: u8,
    value: u64,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let one = (0_usize..8, 0_u8..6, 0_u64..90);
    let one = one.prop_map(|(at, kind, value)| Change { at, kind, value });
    prop::collection::vec(one, 0..3)
}

fn steps() -> impl Strategy<Value = Vec<(&'static str, Status)>> {
    let task = prop::sample::select(vec!["a", "b", "c"]);
    let status = prop::sample::select(Status::ALL.to_vec());
    prop::collection::vec((task, status), 1..8)
}

fn changed(mut story: Story, changes: &[Change]) -> Story {
    for change in changes {
        let at = change.at % story.records.len();
        let record = story.record(at);
        let value = change.value;
        match change.kind {
            0 => record.after = value,
            1 => record.attempt = u32::try_from(value % 4).unwrap(),
            2 => record.previous = Some(Status::ALL[usize::try_from(value % 7).unwrap()]),
            3 => record.seq = record.seq.map(|_| value),
            4 => story.key(|state| state.ledger.counters.attempts = value),
            _ if story.records.len() > 1 => drop(story.records.remove(at)),
            _ => {}
        }
    }
    story
}

fn whole(story: &Story) -> History {
    let stored = |(seq, record): &(u64, Record)| StoredRecord {
        seq: *seq,
        record: record.clone(),
        parent: None,
    };
    let history = JobHistory {
        state: story.before.clone(),
        records: story.records.iter().map(stored).collect(),
        ..JobHistory::default()
    };
    History {
        jobs: [(job(), history)].into(),
        ..History::default()
    }
}

proptest! {
    #[test]
    fn one_pass_is_as_good(steps in steps(), changes in changes()) {
        let mut story = changed(story(&steps), &changes);
        story.key(|state| state.status = JobStatus::Waiting);
        let findings = story.findings();
        let history = whole(&story);
        for invariant in [Invariant::OneCommit, Invariant::Order, Invariant::TrueCounters] {
            let one_pass = findings.verdict(invariant) == Verdict::Refuted;
            let is_broken = !invariant.check(&history).is_empty();
            prop_assert_eq!(one_pass, is_broken, "{:?}: {:#?}", invariant, findings);
        }
    }
}
