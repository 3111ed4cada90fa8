//! Tests of what is polled, over an infrastructure that answers as it is told.

use std::collections::HashMap;

use super::*;

/// Runs as they are told, and whether it answers.
#[derive(Debug, Default)]
struct Told {
    away: Mutex<bool>,
    /// Those that the list shows.
    listed: Mutex<HashSet<Uuid>>,
    /// What single runs answer.
    exits: Mutex<HashMap<Uuid, Result<Option<Exit>, Fault>>>,
    ended: Mutex<Vec<Uuid>>,
}

impl Told {
    fn answer<T>(&self, value: T) -> Result<T, Fault> {
        if *lock(&self.away) {
            Err(Fault::Away("nobody".into()))
        } else {
            Ok(value)
        }
    }
}

impl Remote for Told {
    fn offer(&self) -> Offer {
        Offer::plain("told")
    }

    fn look(&self) -> Later<'_, Result<String, Fault>> {
        Box::pin(async { self.answer("realm".to_owned()) })
    }

    fn start<'a>(&'a self, order: &'a Order) -> Later<'a, Result<Spawned, SpawnError>> {
        Box::pin(async {
            self.answer(())?;
            lock(&self.listed).insert(order.runner);
            Ok(Spawned::Done)
        })
    }

    fn end(&self, runner: Uuid) -> Later<'_, Result<(), Fault>> {
        lock(&self.ended).push(runner);
        Box::pin(async { self.answer(()) })
    }

    fn live(&self) -> Later<'_, Result<HashSet<Uuid>, Fault>> {
        Box::pin(async { self.answer(lock(&self.listed).clone()) })
    }

    fn exit(&self, runner: Uuid) -> Later<'_, Result<Option<Exit>, Fault>> {
        let told = lock(&self.exits).get(&runner).cloned();
        Box::pin(async { told.unwrap_or(Ok(None)) })
    }
}

fn order(runner: u128) -> Arc<Order> {
    Arc::new(Order {
        job: "j".parse().unwrap(),
        seq: 1,
        runner: Uuid::from_u128(runner),
        fence: 2,
        backend: "told".into(),
        state: None,
        image: None,
        resources: None,
    })
}

/// A backend that runs these, and its ends.
async fn running(
    runners: &[u128],
) -> (
    Polled<Told>,
    mpsc::UnboundedSender<End>,
    mpsc::UnboundedReceiver<End>,
) {
    let polled = Polled::new(Told::default(), Duration::from_secs(1));
    for runner in runners {
        assert_eq!(polled.spawn(order(*runner)).await, Ok(Spawned::Done));
    }
    let (send, ends) = mpsc::unbounded_channel();
    (polled, send, ends)
}

fn leaves(polled: &Polled<Told>, runner: u128, exit: Result<Option<Exit>, Fault>) {
    let runner = Uuid::from_u128(runner);
    lock(&polled.remote.listed).remove(&runner);
    lock(&polled.remote.exits).insert(runner, exit);
}

#[tokio::test]
async fn a_run_that_the_list_lacks_has_ended_only_where_it_says_so_itself() {
    let (polled, send, mut ends) = running(&[1, 2, 3]).await;
    leaves(&polled, 1, Ok(Some(Exit::Code(0))));
    leaves(&polled, 2, Ok(None));
    polled.poll(&send).await.unwrap();
    polled.poll(&send).await.unwrap();
    let (runner, exit) = (Uuid::from_u128(1), Exit::Code(0));
    assert_eq!(ends.try_recv(), Ok(End { runner, exit }));
    assert!(ends.try_recv().is_err(), "told once, and of no other");
    let asked = [1, 2, 3, 4].map(Uuid::from_u128).into();
    assert_eq!(polled.gone(asked).await, [runner].into());
}

#[tokio::test]
async fn one_run_without_an_answer_keeps_nobody_from_hearing_of_the_rest() {
    let (polled, send, mut ends) = running(&[1, 2]).await;
    leaves(&polled, 1, Err(Fault::Answer(500, "no".into())));
    leaves(&polled, 2, Ok(Some(Exit::Killed)));
    polled.poll(&send).await.unwrap();
    assert_eq!(ends.try_recv().unwrap().runner, Uuid::from_u128(2));
}

#[tokio::test]
async fn who_is_away_proves_nobody_dead_and_starts_nothing() {
    let (polled, send, mut ends) = running(&[1]).await;
    assert_eq!(polled.offer().realm.as_deref(), Some("realm"));
    leaves(&polled, 1, Ok(Some(Exit::Killed)));
    *lock(&polled.remote.away) = true;
    assert!(polled.poll(&send).await.is_err());
    assert!(ends.try_recv().is_err());
    let asked = [Uuid::from_u128(1)].into();
    assert_eq!(polled.gone(asked).await, HashSet::new());
    let started = polled.spawn(order(2)).await;
    assert!(matches!(started, Err(SpawnError::Unavailable(_))));
    let offer = polled.offer();
    assert!(matches!(offer.room, Room::Away(_)) && offer.realm.is_none());
    *lock(&polled.remote.away) = false;
    polled.poll(&send).await.unwrap();
    assert_eq!(polled.offer().room, Room::Free);
    assert_eq!(ends.try_recv().unwrap().exit, Exit::Killed);
}

#[tokio::test]
async fn a_runner_that_was_killed_is_not_told_of() {
    let (polled, send, mut ends) = running(&[1]).await;
    let runner = Uuid::from_u128(1);
    polled.kill(runner).await;
    leaves(&polled, 1, Ok(Some(Exit::Killed)));
    polled.poll(&send).await.unwrap();
    assert!(ends.try_recv().is_err());
    assert_eq!(*lock(&polled.remote.ended), [runner]);
}
