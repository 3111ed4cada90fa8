//! Budgets on a real server: many that reserve at once never take more than there is, what a budget lacks stops a
//! job and no task, and whoever dies leaves nothing reserved.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

mod accounts;
mod dead;
mod jobs;

use air_nats::Nats;
use air_protocol::budget::Account;
use air_protocol::job::JobState;
use air_tests::{Installation, wait_for};

/// The account of a job's budget.
async fn account(nats: &Nats, root: &str) -> Option<Account> {
    nats.account(&root.parse().unwrap()).await.unwrap().0
}

/// Waits until nothing is reserved in an account, and so many tasks are over by it.
async fn settled(air: &Installation, root: &str, tasks: u64) -> Account {
    wait_for("account with nothing reserved", async || {
        match account(&air.nats, root).await {
            Some(account) if account.reserved.is_empty() && account.spent.tasks == tasks => {
                Ok(account)
            }
            other => Err(other),
        }
    })
    .await
}

/// Waits until a job says that its account has not enough left; gives what it says.
async fn over_budget(air: &Installation, job: &str) -> String {
    let state = air
        .wait_state(job, |state: &JobState| state.over_budget.is_some())
        .await;
    let lack = state.over_budget.unwrap();
    format!("{}: {}", lack.account, lack.reason)
}
