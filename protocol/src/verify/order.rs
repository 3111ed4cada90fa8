//! I7, as records come by: fences rise, so the messages of those that had a turn must rise with them.

use super::{JobCheck, Message, Place, Suspect, binds};
use crate::invariants::Invariant;
use crate::names::TaskId;
use crate::record::Record;

/// The highest messages that had their turn.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Fence of the last turn.
    fence: u64,
    /// Highest message of that fence: one claim may settle several.
    highest: (u64, u64),
    /// Highest message of all earlier fences, and the record of it.
    before: (u64, u64),
}

impl JobCheck {
    /// Notes whose turn it was, and that nobody of an earlier message had it later.
    pub(super) fn check_turn(&mut self, seq: u64, task: &TaskId, record: &Record) {
        let (Some(message), Some(fence)) = (record.seq, record.fence) else {
            return;
        };
        if !binds(record.spec.as_ref(), record.attempt) || fence < self.order.fence {
            return;
        }
        if fence > self.order.fence {
            self.order.before = self.order.before.max(self.order.highest);
            self.order.fence = fence;
        }
        self.order.highest = self.order.highest.max((message, seq));
        let (earlier, its_record) = self.order.before;
        if message < earlier {
            let text = format!(
                "its message {message} had its turn at the fence {fence}, after the message {earlier}"
            );
            let places = vec![
                Place::Record(None, its_record),
                Place::Record(Some(task.clone()), seq),
            ];
            self.finding(Invariant::Order, Some(task), places, text);
        }
    }

    /// A message that waits, although one behind it had its turn.
    pub(super) fn suspect_overtaken(&mut self, message: &Message) {
        let (turn, _) = self.order.before.max(self.order.highest);
        if message.binds && !message.scheduled && message.seq < turn {
            self.suspect(Suspect::Overtaken(message.clone(), turn));
        }
    }
}
