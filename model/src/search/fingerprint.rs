//! The processes in a fingerprint. What is not here is either fixed or follows from what is.

use crate::actor::empty::{self, Empty};
use crate::actor::look::{After, Look, Next};
use crate::actor::recover::{self, Recover};
use crate::actor::remove::{self, Remove};
use crate::actor::requeue::{self, Requeue};
use crate::actor::runner::{self, Runner};
use crate::actor::settle::{self, Deed, End, Settle};
use crate::actor::user::{self, User};
use crate::actor::{Committing, Swapping};
use crate::canon::Canon;

use super::world::{Manager, Process, World};

impl Canon {
    /// A whole world.
    pub fn world(&mut self, world: &World) {
        self.store(&world.store);
        self.unordered(world.managers.len(), |index, canon| {
            canon.manager(&world.managers[index]);
        });
        self.unordered(world.runners.len(), |index, canon| {
            canon.runner(&world.runners[index]);
        });
        self.unordered(world.users.len(), |index, canon| {
            canon.user(&world.users[index]);
        });
        self.plain(&world.todo);
        self.plain(&world.budget);
        self.plain(&(world.tick, world.tainted));
        self.plain(&world.acknowledged);
        self.plain(&world.removed);
    }

    fn manager(&mut self, manager: &Manager) {
        self.maybe(manager.process.as_ref(), |process, canon| match process {
            Process::Look(look) => canon.look(look),
            Process::Recover(recover) => canon.recover(recover),
        });
        // Only a look at a moment of its own has another time than the world.
        self.plain(&(manager.process.is_some() && manager.past_hold));
    }

    fn look(&mut self, look: &Look) {
        self.plain(&look.job);
        self.key(&look.key);
        self.plain(&(look.foreign_asked, look.scanned_anew, look.searched));
        self.maybe(look.folded.as_ref(), |folded, canon| {
            canon.ledger(&folded.ledger);
            canon.plain(&folded.failed);
        });
        self.maybe(look.pick.as_ref(), |pick, canon| {
            canon.maybe(pick.ready.as_ref(), |ready, canon| {
                canon.target(&ready.target)
            });
            pick.decisions
                .iter()
                .for_each(|decision| canon.decision(decision));
            pick.blocked.iter().for_each(|(task, _)| canon.plain(task));
            canon.plain(&pick.again);
            canon.seq(pick.scanned_to);
        });
        self.maybe(look.pending.as_ref(), |pending, canon| {
            canon.plain(&pending.schedules);
            canon.seq(pending.last_queued);
            canon.seq(pending.last_seq);
        });
        for seq in look.left(air_protocol::time::Time::from_millis(u64::MAX)) {
            self.seq(seq);
        }
        self.next(&look.next);
    }

    fn next(&mut self, next: &Next) {
        self.plain(&std::mem::discriminant(next));
        match next {
            Next::Lasts(messages) => messages.iter().for_each(|message| self.queued(message)),
            Next::Delete(left, count) => {
                left.iter().for_each(|seq| self.seq(*seq));
                self.plain(count);
            }
            Next::CountQueue(schedules) => self.plain(schedules),
            Next::Swap(swapping, after) => {
                self.swapping(swapping);
                match after {
                    After::Look => self.plain("look"),
                    After::Nothing => self.plain("nothing"),
                    After::Claim(ready) => self.target(&ready.target),
                    After::Settle => self.plain("settle"),
                }
            }
            Next::Settle(settle) => self.settle(settle),
            Next::Empty(empty) => self.empty(empty),
            Next::Remove(remove) => self.remove(remove),
            Next::Requeue(requeue) => self.requeue(requeue),
            Next::Key
            | Next::Records
            | Next::Foreign
            | Next::Queue
            | Next::CountSchedules
            | Next::Forget
            | Next::End => {}
        }
    }

    fn requeue(&mut self, requeue: &Requeue) {
        self.plain(&std::mem::discriminant(&requeue.stage));
        self.plain(&requeue.found);
        let unseen = requeue.unseen.clone().tasks();
        for (task, seq) in unseen.iter().chain(&requeue.tasks) {
            self.plain(task);
            self.seq(*seq);
        }
        if let requeue::Stage::Publish(with, last) = &requeue.stage {
            self.with(with);
            self.seq(*last);
        }
    }

    fn swapping(&mut self, swapping: &Swapping) {
        self.value(&swapping.state);
        self.revision(swapping.expected.unwrap_or_default());
        self.plain(&swapping.unsure);
    }

    fn committing(&mut self, committing: &Committing) {
        self.commit(&committing.commit);
        self.plain(&committing.unsure);
    }

    fn settle(&mut self, settle: &Settle) {
        self.plain(&settle.job);
        self.state(&settle.state);
        self.revision(settle.revision);
        self.revision(settle.fence.unwrap_or_default());
        for deed in &settle.deeds {
            match deed {
                Deed::Decision(decision) => self.decision(decision),
                Deed::Behalf(running, outcome) => {
                    self.target(&running.target);
                    self.revision(running.fence);
                    self.plain(&std::mem::discriminant(outcome));
                }
            }
        }
        self.seq(settle.last);
        self.plain(&(settle.end == End::Release));
        match &settle.stage {
            settle::Stage::Read => self.plain("read"),
            settle::Stage::Commit(committing) => self.committing(committing),
            settle::Stage::Release(swapping) => self.swapping(swapping),
        }
    }

    fn recover(&mut self, recover: &Recover) {
        self.plain(&recover.job);
        self.revision(recover.judged);
        match &recover.stage {
            recover::Stage::Read => self.plain("read"),
            recover::Stage::Take(swapping, lease, failed_starts) => {
                self.swapping(swapping);
                self.phase(&lease.phase);
                self.plain(failed_starts);
            }
            recover::Stage::Settle(settle) => self.settle(settle),
        }
    }

    fn empty(&mut self, empty: &Empty) {
        self.plain(&empty.job);
        self.state(&empty.state);
        self.revision(empty.revision);
        empty.tasks.iter().for_each(|(task, _)| self.plain(task));
        self.plain(&std::mem::discriminant(&empty.stage));
        match &empty.stage {
            empty::Stage::Commit(committing) => self.committing(committing),
            empty::Stage::Bound(swapping) | empty::Stage::Release(swapping) => {
                self.swapping(swapping);
            }
            empty::Stage::End
            | empty::Stage::List
            | empty::Stage::Read
            | empty::Stage::Schedules
            | empty::Stage::Queue
            | empty::Stage::Fold => {}
        }
    }

    fn remove(&mut self, remove: &Remove) {
        self.plain(&remove.job);
        self.state(&remove.state);
        self.revision(remove.revision);
        self.plain(&std::mem::discriminant(&remove.stage));
        if let remove::Stage::Bound(swapping) = &remove.stage {
            self.swapping(swapping);
        }
    }

    fn runner(&mut self, runner: &Runner) {
        self.plain(&runner.job);
        self.run(runner.run);
        self.revision(runner.fence);
        self.target(&runner.target);
        self.state(&runner.held);
        self.revision(runner.revision);
        self.plain(&std::mem::discriminant(&runner.stage));
        match &runner.stage {
            runner::Stage::Start(swapping) => self.swapping(swapping),
            runner::Stage::Commit(committing) | runner::Stage::Over(committing) => {
                self.committing(committing);
            }
            runner::Stage::Release(swapping, record) => {
                self.swapping(swapping);
                self.seq(*record);
            }
            runner::Stage::Reread(record) => self.seq(*record),
            runner::Stage::Look | runner::Stage::Run => {}
        }
    }

    fn user(&mut self, user: &User) {
        self.plain(&user.job);
        self.plain(&std::mem::discriminant(&user.deed));
        self.plain(&std::mem::discriminant(&user.stage));
        match &user.stage {
            user::Stage::Begin => {}
            user::Stage::Reset(resets) => resets.iter().for_each(|one| self.committing(one)),
            user::Stage::CancelTask(committing) => self.committing(committing),
            user::Stage::Key(event) => self.plain(event.as_str()),
            user::Stage::Swap(event, swapping) => {
                self.plain(event.as_str());
                self.swapping(swapping);
            }
        }
    }
}
