//! What a look does about budgets: reserves before the claim, and takes in why nothing could be reserved.

use air_protocol::budget::Refusal;
use air_protocol::job::OverBudget;
use air_protocol::lease::{Decision, Verdict};
use uuid::Uuid;

use super::{Failed, Look};
use crate::backlog::Ready;
use crate::budget;
use crate::decide::{Lack, Refused};

impl Look<'_> {
    /// Reserves for the runner of a claim, where an account pays for the task. False when nothing could be
    /// reserved; then the next decision knows why.
    pub(super) async fn reserve(&mut self, runner: Uuid, ready: &Ready) -> Result<bool, Failed> {
        let Some(charge) = &ready.charge else {
            return Ok(true);
        };
        let target = ready.target.clone();
        let account = charge.account.clone();
        let why = match budget::reserve(self.shared, charge, runner).await? {
            Ok(()) => return Ok(true),
            Err(Refusal::Busy) => Lack::Busy(account),
            Err(Refusal::Short(reason)) => Lack::Short(OverBudget { account, reason }),
            Err(Refusal::TooDeep(reason)) => {
                if let Some(pick) = &mut self.pick {
                    pick.ready = None;
                    let verdict = Verdict::Fail { reason };
                    pick.decisions.push(Decision { target, verdict });
                }
                return Ok(false);
            }
        };
        self.refused = Some(Refused { target, why });
        Ok(false)
    }

    /// Gives back what was reserved for a runner that will not start.
    pub(super) async fn give_back(&self, runner: Uuid, ready: &Ready) -> Result<(), Failed> {
        let account = ready.charge.as_ref().map(|charge| &charge.account);
        budget::give_back(self.shared, account, runner).await
    }
}
