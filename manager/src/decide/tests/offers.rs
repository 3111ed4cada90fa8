//! Which backend a claim is for, and what happens where none takes it.

use super::*;
use crate::offers::Room;

#[test]
fn another_backends_task_is_left() {
    let mut seen = Seen::waiting();
    seen.pick = Some(ready(Some("docker")));
    assert_eq!(seen.step(), Step::Rest(Rest::OtherBackend));
    seen.pick = Some(ready(Some("process")));
    assert_eq!(seen.writes(), "working/starting");
}

#[test]
fn a_task_is_claimed_for_the_backend_that_takes_it() {
    let mut seen = Seen::waiting();
    let docker = Offer {
        images: true,
        realm: Some("daemon".into()),
        start_within: Span(Duration::from_secs(600)),
        ..Offer::plain("docker")
    };
    seen.offers.push(docker.clone());
    seen.pick = Some(ready(Some("docker")));
    let Step::Claim(state, _) = seen.step() else {
        panic!("no claim")
    };
    let lease = state.lease().unwrap();
    assert_eq!(lease.backend, "docker");
    assert_eq!(lease.realm, docker.realm);
    assert_eq!(lease.start_within, docker.start_within);
    seen.offers[1].room = Room::Full;
    let full = Rest::Full(vec!["docker".into()]);
    assert_eq!(seen.step(), Step::Rest(full.clone()));
    seen.folded.as_mut().unwrap().ledger.accounted = 9;
    assert_eq!(seen.step(), Step::Rest(full), "nothing is written for that");
    seen.key = Key::Absent;
    assert_eq!(seen.writes(), "waiting", "a new job shows itself");
    seen = Seen {
        pick: seen.pick,
        offers: seen.offers,
        ..Seen::waiting()
    };
    let until = NOW.after(Duration::from_secs(9));
    seen.offers[1].room = Room::Away(until);
    assert_eq!(seen.step(), Step::Rest(Rest::Away(until)));
}
