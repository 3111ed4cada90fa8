//! Tests of the fleet, over backends that answer as they are told.

use super::super::Exit;
use super::*;

/// A backend that starts, refuses or is away as it is told, and remembers what it was asked.
#[derive(Debug)]
struct Told {
    name: &'static str,
    tells_ends: bool,
    answer: Mutex<Result<Spawned, SpawnError>>,
    asked: Mutex<Vec<String>>,
}

impl Told {
    fn new(name: &'static str) -> Arc<Self> {
        Self::who(name, true)
    }

    fn who(name: &'static str, tells_ends: bool) -> Arc<Self> {
        Arc::new(Self {
            name,
            tells_ends,
            answer: Mutex::new(Ok(Spawned::Done)),
            asked: Mutex::default(),
        })
    }

    fn will(&self, answer: Result<Spawned, SpawnError>) {
        *lock(&self.answer) = answer;
    }

    fn note(&self, what: &str, runner: Uuid) {
        lock(&self.asked).push(format!("{what} {}", runner.as_u128()));
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.asked))
    }
}

impl Backend for Told {
    fn offer(&self) -> Offer {
        Offer {
            realm: Some(format!("realm of {}", self.name)),
            ..Offer::plain(self.name)
        }
    }

    fn spawn_within(&self) -> Duration {
        Duration::from_secs(7)
    }

    fn spawn(&self, order: Arc<Order>) -> Later<'_, Result<Spawned, SpawnError>> {
        self.note("spawn", order.runner);
        let answer = lock(&self.answer).clone();
        Box::pin(async move { answer })
    }

    fn watch(self: Arc<Self>, ends: mpsc::UnboundedSender<End>) -> Later<'static, ()> {
        Box::pin(async move {
            let (runner, exit) = (Uuid::from_u128(1), Exit::Code(0));
            let _ = ends.send(End { runner, exit });
        })
    }

    fn tells_ends(&self) -> bool {
        self.tells_ends
    }

    fn stop(&self, runner: Uuid) -> Later<'_, ()> {
        self.note("stop", runner);
        Box::pin(async {})
    }

    fn kill(&self, runner: Uuid) -> Later<'_, Option<Exit>> {
        self.note("kill", runner);
        Box::pin(async { Some(Exit::Evicted) })
    }

    fn gone(&self, runners: HashSet<Uuid>) -> Later<'_, HashSet<Uuid>> {
        Box::pin(async { runners })
    }

    fn clear(&self) -> Later<'_, ()> {
        self.note("clear", Uuid::nil());
        Box::pin(async {})
    }
}

fn limits(all: usize, of: &[(&str, usize)]) -> Limits {
    let of = of.iter().map(|(name, most)| ((*name).to_owned(), *most));
    Limits {
        runners_max: all,
        of: of.collect(),
    }
}

fn order(backend: &str, runner: u128) -> Order {
    Order {
        job: "j".parse().unwrap(),
        seq: 1,
        runner: Uuid::from_u128(runner),
        fence: 2,
        backend: backend.into(),
        state: None,
        image: None,
        resources: None,
    }
}

/// A fleet of `a` and `b`.
fn two(limits: Limits) -> (Arc<Told>, Arc<Told>, Fleet) {
    let (a, b) = (Told::new("a"), Told::new("b"));
    let members: Vec<Arc<dyn Backend>> = vec![a.clone(), b.clone()];
    (a, b, Fleet::new(members, limits))
}

fn rooms(fleet: &Fleet) -> Vec<Room> {
    fleet.offers().iter().map(|offer| offer.room).collect()
}

async fn start(fleet: &Fleet, backend: &str, runner: u128) -> Result<Spawned, SpawnError> {
    let place = fleet.take(backend).unwrap();
    fleet.spawn(order(backend, runner), place).await
}

#[tokio::test]
async fn places_are_counted_in_all_and_of_each_backend() {
    let (_, _, fleet) = two(limits(3, &[("a", 1)]));
    assert_eq!(rooms(&fleet), [Room::Free, Room::Free]);
    start(&fleet, "a", 1).await.unwrap();
    assert_eq!(rooms(&fleet), [Room::Full, Room::Free]);
    assert!(fleet.take("a").is_none());
    assert_eq!(
        (fleet.free(), fleet.free_of("b"), fleet.running()),
        (2, 2, 1)
    );
    start(&fleet, "b", 2).await.unwrap();
    let kept = fleet.take("b").unwrap();
    assert_eq!(rooms(&fleet), [Room::Full, Room::Full], "three in all");
    drop(kept);
    assert_eq!(fleet.free(), 1);
    fleet.ended(Uuid::from_u128(1));
    fleet.ended(Uuid::from_u128(1));
    assert_eq!((fleet.free(), fleet.free_of("a")), (2, 1), "once");
}

#[tokio::test]
async fn who_waits_for_a_place_hears_when_there_may_be_one() {
    let (_, _, fleet) = two(limits(1, &[]));
    let mut freed = fleet.freed();
    start(&fleet, "a", 1).await.unwrap();
    assert!(!freed.has_changed().unwrap());
    fleet.ended(Uuid::from_u128(1));
    assert!(freed.has_changed().unwrap());
    freed.mark_unchanged();
    fleet.set_limits(limits(5, &[("b", 0)]));
    assert!(freed.has_changed().unwrap());
    assert_eq!((fleet.free_of("a"), fleet.free_of("b")), (5, 0));
}

#[tokio::test]
async fn a_runner_that_was_not_started_takes_no_place() {
    let (a, b, fleet) = two(limits(9, &[]));
    a.will(Err(SpawnError::Refused("no image".into())));
    start(&fleet, "a", 1).await.unwrap_err();
    assert_eq!(
        rooms(&fleet),
        [Room::Free, Room::Free],
        "it is there all the same"
    );
    b.will(Err(SpawnError::Unavailable("no daemon".into())));
    start(&fleet, "b", 2).await.unwrap_err();
    assert_eq!((fleet.running(), fleet.free()), (0, 9));
    let rooms = rooms(&fleet);
    assert!(
        rooms[0] == Room::Free && matches!(rooms[1], Room::Away(_)),
        "{rooms:?}"
    );
    assert_eq!(fleet.names(), ["a"]);
    let other = start(&fleet, "c", 3).await.unwrap_err();
    assert!(matches!(other, SpawnError::Unavailable(_)));
    assert_eq!(fleet.free(), 9);
}

#[tokio::test]
async fn a_runner_is_ended_by_the_backend_of_its_lease() {
    let (a, b, fleet) = two(limits(9, &[]));
    start(&fleet, "a", 1).await.unwrap();
    start(&fleet, "b", 2).await.unwrap();
    fleet.stop().await;
    assert_eq!(a.asked(), ["spawn 1", "stop 1"]);
    assert_eq!(b.asked(), ["spawn 2", "stop 2"]);
    let Killed(found) = fleet.kill("b", Uuid::from_u128(2)).await;
    assert_eq!((a.asked().len(), b.asked()), (0, vec!["kill 2".to_owned()]));
    assert_eq!(found, Some(Exit::Evicted));
    assert_eq!(
        fleet.running(),
        1,
        "its place is free, whatever is heard of it"
    );
    let Killed(found) = fleet.kill("elsewhere", Uuid::from_u128(3)).await;
    assert_eq!(a.asked(), ["kill 3"]);
    assert_eq!(b.asked(), ["kill 3"]);
    assert_eq!(found, Some(Exit::Evicted), "what one of them knows");
}

#[tokio::test]
async fn runners_of_others_are_looked_for_in_the_realm_of_each_backend() {
    let (_, b, fleet) = two(limits(9, &[]));
    start(&fleet, "a", 1).await.unwrap();
    let one = |runner| HashSet::from([Uuid::from_u128(runner)]);
    assert!(
        fleet.look_for(|_, _| one(1)).is_none(),
        "its end is heard of"
    );
    let mut realms = Vec::new();
    let look = fleet.look_for(|realm, within| {
        realms.push((realm.to_owned(), within.as_secs()));
        if realm.ends_with('b') { one(2) } else { one(1) }
    });
    assert_eq!(look.unwrap().await, one(2));
    let both = ["realm of a", "realm of b"].map(|realm| (realm.to_owned(), 7));
    assert_eq!(realms, both);
    b.will(Err(SpawnError::Unavailable("no daemon".into())));
    start(&fleet, "b", 3).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn every_backend_tells_of_ends_and_clears_up_again_and_again() {
    let (a, b, fleet) = two(limits(9, &[]));
    let (ends, mut heard) = mpsc::unbounded_channel();
    let mut feeds = JoinSet::new();
    fleet.watch(&ends, &mut feeds);
    drop(ends);
    tokio::time::sleep(SWEEP_EVERY + Duration::from_secs(1)).await;
    let mut count = 0;
    while heard.recv().await.is_some() {
        count += 1;
    }
    let twice = vec!["clear 0".to_owned(); 2];
    assert_eq!((count, a.asked(), b.asked()), (2, twice.clone(), twice));
}

#[tokio::test]
async fn a_place_of_which_no_backend_tells_is_free_when_the_key_says_so() {
    let members: Vec<Arc<dyn Backend>> = vec![Told::who("a", false), Told::new("b")];
    let fleet = Fleet::new(members, limits(9, &[]));
    let (job, runner) = ("j".parse().unwrap(), Uuid::from_u128(1));
    start(&fleet, "a", 1).await.unwrap();
    fleet.key_names(&job, 1, None);
    assert_eq!(fleet.running(), 1, "that was before its claim");
    fleet.key_names(&job, 3, Some(runner));
    assert_eq!((fleet.running(), fleet.awaited()), (1, 0));
    fleet.key_names(&job, 4, None);
    assert_eq!(fleet.running(), 0);
    start(&fleet, "a", 2).await.unwrap();
    start(&fleet, "a", 3).await.unwrap();
    assert_eq!(fleet.running(), 1, "a job has one runner");
    fleet.forget_keys();
    assert_eq!(fleet.running(), 0, "revisions count anew");
    start(&fleet, "b", 4).await.unwrap();
    fleet.key_names(&job, 9, None);
    assert_eq!((fleet.running(), fleet.awaited()), (1, 1), "b tells itself");
}
