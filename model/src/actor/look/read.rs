//! What a look reads: `manager/src/advance/read.rs`.

use std::collections::BTreeSet;

use air_manager::backlog::{Backlog, Context, TaskRef};
use air_manager::circle::Waits;
use air_manager::decide::{Folded, Pending};
use air_nats::jobs::Key;
use air_protocol::approval::Rules;
use air_protocol::record::Status;

use super::{Look, Next};
use crate::actor::{Env, Flow};
use crate::broker::Stream;
use crate::store::Content;

impl Look {
    pub(super) fn read_records(&mut self, env: &mut Env<'_>, waits: &mut Waits) -> Flow {
        let (mut ledger, named) = match self.key.state() {
            Some(state) => (state.ledger.clone(), state.last_record),
            None => Default::default(),
        };
        if self.key == Key::Absent {
            *self.backlog = Backlog::new(self.job.clone());
        }
        self.backlog.heed(Rules::of(&self.spec(env)));
        let (accounted, purged_to) = (ledger.accounted, ledger.purged_to);
        let from = self.backlog.begin(accounted, purged_to, env.now);
        let records = env.store.records_after(&env.view(), &self.job, from);
        let seen = records.last().map_or(from, |(seq, _)| *seq);
        let mut folded = Folded::default();
        for (seq, record) in &records {
            if record.status == Status::Failed {
                folded.failed = Some(record.task.clone());
            }
            ledger.fold(*seq, record);
            self.backlog.learn(*seq, record, env.now);
        }
        if seen < named && ledger.accounted < named {
            // The reply is older than what the key names: the look fails, and the job is looked at again.
            return Flow::Ends;
        }
        folded.ledger = ledger;
        self.folded = Some(folded);
        self.decide(env, waits)
    }

    /// Reads on until something can be done, then picks.
    pub(super) fn read_on(&mut self, env: &mut Env<'_>, waits: &mut Waits) -> Flow {
        let spec = self.spec(env);
        let context = Context {
            now: env.now,
            spec: &spec,
            waits,
        };
        if self.backlog.wants_more(context) {
            self.next = Next::Queue;
            return Flow::Goes;
        }
        let unsure = self.backlog.unsure(context);
        if !unsure.is_empty() {
            return self.search(env, waits, unsure);
        }
        waits.replace(&self.job, self.backlog.waiting());
        waits.want(&self.job, self.backlog.wanted());
        let context = Context {
            now: env.now,
            spec: &spec,
            waits,
        };
        self.pick = Some(self.backlog.pick(context));
        self.decide(env, waits)
    }

    /// Searches the queues of other jobs, all in one step, and then goes on.
    fn search(&mut self, env: &mut Env<'_>, waits: &mut Waits, unsure: BTreeSet<TaskRef>) -> Flow {
        let view = env.view();
        let is_queued = |(job, task): &TaskRef| {
            let queue = env.store.queued(&view, job, 1);
            queue.iter().any(|message| message.id == *task)
        };
        let queued = unsure.iter().filter(|task| is_queued(task)).cloned();
        let queued: BTreeSet<_> = queued.collect();
        let asked: Vec<_> = unsure.into_iter().collect();
        let lasts = env.store.last_records(&view, &self.job, &asked);
        self.backlog.learn_lasts(&lasts);
        self.backlog.searched(asked, &queued, env.now);
        self.read_on(env, waits)
    }

    pub(super) fn count(&mut self, env: &mut Env<'_>, waits: &mut Waits, schedules: u64) -> Flow {
        let queue = env.store.names().tasks(&self.job);
        let last = env.store.leader().last_of(&queue);
        let last_queued = last.map_or(0, |last| last.seq);
        if last_queued >= self.backlog.next_seq() && !self.scanned_anew {
            *self.backlog = Backlog::new(self.job.clone());
            self.scanned_anew = true;
            self.forget();
            return self.decide(env, waits);
        }
        self.pending = Some(Pending {
            schedules,
            last_queued,
            last_seq: env.store.leader().last_seq(),
        });
        self.decide(env, waits)
    }

    /// Whether a replica has seen all that this look has seen; from another one it reads again.
    pub(super) fn has_seen(&self, view: &Stream<Content>, at_least: u64) -> bool {
        let named = self.key.state().map_or(0, |state| state.last_record);
        view.last_seq() >= at_least.max(named).max(self.backlog.known_to())
    }
}
