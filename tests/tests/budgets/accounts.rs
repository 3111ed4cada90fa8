//! Accounts alone: many that write one at the same time.

use air_nats::budgets::Changed;
use air_protocol::budget::{Account, Budget, Limits, Refusal, Taken, Wants};
use air_protocol::cost::{Cost, Usd};
use air_protocol::names::JobName;
use air_protocol::time::Time;
use air_tests::Server;
use uuid::Uuid;

use crate::account;

/// Agents at once, each in a job of its own.
const AGENTS: u64 = 20;
/// The budget of them all, in millionths of a dollar, and what the last turn of each costs beyond its limit.
const LIMIT: u64 = 1_000_000;
const TURN: u64 = 1_000;
/// Tasks that each would like to run.
const TASKS: u64 = 10;

fn now() -> Time {
    std::time::SystemTime::now().into()
}

fn wants(job: u64, usd: u64) -> Wants {
    Wants {
        job: format!("j{job}").parse().unwrap(),
        task: "t".parse().unwrap(),
        attempt: 1,
        depth: 0,
        agent: Some(Limits {
            usd: Some(Usd::from_micros(usd)),
            turns: None,
        }),
    }
}

fn of_cost(micros: u64) -> Taken {
    let cost = Cost {
        usd: Usd::from_micros(micros),
        ..Cost::default()
    };
    Taken::Known { cost, over: true }
}

fn limited() -> Account {
    Account::new(Budget {
        usd: Some(Usd::from_micros(LIMIT)),
        ..Budget::default()
    })
}

async fn reserve(nats: &air_nats::Nats, root: &JobName, wants: &Wants) -> Result<Uuid, Refusal> {
    let runner = Uuid::now_v7();
    let reserved = nats.change_account(root, |account| {
        let mut next = account.unwrap_or_else(limited);
        match next.reserve(runner, wants, now()) {
            Ok(_) => (Some(next), Ok(runner)),
            Err(refusal) => (None, Err(refusal)),
        }
    });
    reserved.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_agents_at_once_never_take_more_than_there_is() {
    let server = Server::start();
    let nats = server.connect_init().await;
    let root: JobName = "root".parse().unwrap();
    let mut agents = tokio::task::JoinSet::new();
    for agent in 0..AGENTS {
        let (nats, root) = (nats.clone(), root.clone());
        agents.spawn(async move {
            let mut turns = 0;
            for task in 0..TASKS {
                // Between 0.03 and 0.07 dollars: they all want more than there is.
                let usd = 30_000 + (agent * TASKS + task) % 5 * 10_000;
                let Ok(runner) = reserve(&nats, &root, &wants(agent, usd)).await else {
                    tokio::task::yield_now().await;
                    continue;
                };
                let limits = nats.begin_spending(&root, runner).await.unwrap().unwrap();
                assert_eq!(limits.usd, Some(Usd::from_micros(usd)));
                let (account, _) = nats.account(&root).await.unwrap();
                assert_eq!(account.unwrap().reserved[&runner].limits(), limits);
                let took = if task % 3 == 0 { usd + TURN } else { usd / 2 };
                turns += u64::from(task % 3 == 0);
                assert!(
                    nats.settle_account(&root, runner, of_cost(took))
                        .await
                        .unwrap()
                );
                let again = nats.settle_account(&root, runner, of_cost(took)).await;
                assert!(!again.unwrap(), "settled once");
            }
            turns
        });
    }
    let (mut turns, mut ended) = (0, 0);
    while let Some(agent) = agents.join_next().await {
        turns += agent.unwrap();
        ended += 1;
        let account = account(&nats, "root").await.unwrap();
        let sum = account.spent.usd.plus(account.reserved_sum().usd).micros();
        // Each agent that still runs may have ended one of its last turns that is not counted here yet.
        let most = LIMIT + (turns + (AGENTS - ended) * TASKS) * TURN;
        assert!(sum <= most, "{sum} of {most}");
    }
    let account = account(&nats, "root").await.unwrap();
    assert!(account.reserved.is_empty(), "{account:?}");
    assert!(account.spent.usd.micros() <= LIMIT + turns * TURN);
    assert!(
        account.spent.usd.micros() > LIMIT / 2,
        "they took what they could: {account:?}"
    );
}

#[tokio::test]
async fn who_has_begun_since_it_was_judged_keeps_what_is_reserved() {
    let server = Server::start();
    let nats = server.connect_init().await;
    let root: JobName = "root".parse().unwrap();
    let runner = reserve(&nats, &root, &wants(1, 10)).await.unwrap();
    let judged = account(&nats, "root").await.unwrap().reserved[&runner].clone();
    nats.begin_spending(&root, runner).await.unwrap().unwrap();
    let taken = nats.settle_if(&root, runner, &judged, judged.unknown());
    assert!(!taken.await.unwrap(), "it was judged before it began");
    let begun = account(&nats, "root").await.unwrap().reserved[&runner].clone();
    let taken = nats.settle_if(&root, runner, &begun, begun.unknown());
    assert!(taken.await.unwrap());
    let account = account(&nats, "root").await.unwrap();
    assert_eq!(account.spent.usd, Usd::from_micros(10), "the whole of it");
    assert_eq!(
        nats.begin_spending(&root, runner).await.unwrap(),
        None,
        "nothing is left for it"
    );
}

#[tokio::test]
async fn the_later_limit_of_a_key_stays() {
    let server = Server::start();
    let nats = server.connect_init().await;
    let at = |seconds| now().after(std::time::Duration::from_secs(seconds));
    let (sooner, later) = (at(60), at(120));
    for until in [sooner, later, sooner, Time::from_millis(0)] {
        nats.limit_key("0123456789ab", until, now()).await.unwrap();
    }
    let limit = nats.key_limit("0123456789ab").await.unwrap().unwrap();
    assert_eq!(limit.until, later);
    assert_eq!(nats.key_limit("other").await.unwrap(), None);
    let (changes, seen) = nats.budgets_after(0).await.unwrap();
    assert_eq!(
        changes,
        [Changed::Limit("0123456789ab".into(), limit)],
        "no job has such a name"
    );
    assert!(nats.budgets_after(seen).await.unwrap().0.is_empty());
    assert!(nats.accounts().await.unwrap().is_empty());
}
