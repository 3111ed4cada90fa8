//! Offers: what the backends of a manager can run, what a task asks for, and which of them takes it.
//!
//! Pure. Backends are tried in the order of the configuration: what the first has no room for overflows to the next.
//! A backend that is away is passed over, and what only it can run waits until it is tried again.

use std::time::Duration;

use air_protocol::limits::START_WITHIN_PROCESS;
use air_protocol::time::{Span, Time};

/// Time for which a backend is left alone that could not start a runner; doubled for each further time.
const AWAY_FIRST: Duration = Duration::from_millis(500);
/// Longest such time.
const AWAY_MAX: Duration = Duration::from_secs(10);

/// What one backend can run, and whether it could start a runner now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Name of the backend, as tasks ask for it.
    pub backend: String,
    /// It runs tasks in the image that they ask for.
    pub images: bool,
    /// It runs tasks that ask for no image.
    pub bare: bool,
    /// It gives tasks the resources that they ask for, and no more.
    pub resources: bool,
    /// What else can see its runners: written into each lease.
    pub realm: Option<String>,
    /// Time that it may take from claim to start.
    pub start_within: Span,
    /// Whether it can start a runner now.
    pub room: Room,
}

/// Whether a backend can start one more runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// It can.
    Free,
    /// Each of its places is taken.
    Full,
    /// It is not to be had before this moment.
    Away(Time),
}

impl Offer {
    /// A backend with room, that runs what asks for nothing.
    pub fn plain(backend: &str) -> Self {
        Self {
            backend: backend.to_owned(),
            images: false,
            bare: true,
            resources: false,
            realm: None,
            start_within: Span(START_WITHIN_PROCESS),
            room: Room::Free,
        }
    }

    /// Whether it can run what is asked. Who asks for it by name gets it, if only to be told what it cannot do.
    fn suits(&self, ask: Ask<'_>) -> bool {
        match ask.backend {
            Some(name) => name == self.backend,
            None if ask.image => self.images,
            None => self.bare,
        }
    }
}

/// What a task asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ask<'a> {
    /// A backend of this name.
    pub backend: Option<&'a str>,
    /// An image.
    pub image: bool,
    /// Resources.
    pub resources: bool,
}

/// Which backend takes a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// This one.
    Take(Offer),
    /// One of these, once it has a place.
    Full(Vec<String>),
    /// One that may be back at this moment.
    Away(Time),
    /// None of this manager.
    Nobody,
}

/// Chooses among the backends that can run a task: of those that give the resources that it asks for, if any does,
/// the first that has room.
pub fn choose(offers: &[Offer], ask: Ask<'_>) -> Choice {
    let gives = |offer: &&Offer| offer.suits(ask) && (offer.resources || !ask.resources);
    let mut able: Vec<&Offer> = offers.iter().filter(gives).collect();
    if able.is_empty() {
        able = offers.iter().filter(|offer| offer.suits(ask)).collect();
    }
    if let Some(free) = able.iter().find(|offer| offer.room == Room::Free) {
        return Choice::Take((*free).clone());
    }
    let full = able.iter().filter(|offer| offer.room == Room::Full);
    let full: Vec<String> = full.map(|offer| offer.backend.clone()).collect();
    if !full.is_empty() {
        return Choice::Full(full);
    }
    let back = able.iter().filter_map(|offer| match offer.room {
        Room::Away(until) => Some(until),
        Room::Free | Room::Full => None,
    });
    back.min().map_or(Choice::Nobody, Choice::Away)
}

/// Time for which a backend is left alone that could not start a runner, after this many failures in a row before.
pub fn away_for(failures: u32) -> Duration {
    AWAY_FIRST
        .saturating_mul(2_u32.saturating_pow(failures.min(16)))
        .min(AWAY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Time = Time::from_millis(5_000);

    /// Processes, then containers.
    fn both() -> [Offer; 2] {
        let docker = Offer {
            images: true,
            resources: true,
            ..Offer::plain("docker")
        };
        [Offer::plain("process"), docker]
    }

    fn image() -> Ask<'static> {
        Ask {
            image: true,
            ..Ask::default()
        }
    }

    fn named(backend: &str) -> Ask<'_> {
        Ask {
            backend: Some(backend),
            ..Ask::default()
        }
    }

    fn taker(offers: &[Offer], ask: Ask<'_>) -> String {
        match choose(offers, ask) {
            Choice::Take(offer) => offer.backend,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_that_can_run_a_task_takes_it() {
        assert_eq!(taker(&both(), Ask::default()), "process");
        assert_eq!(taker(&both(), image()), "docker");
        assert_eq!(taker(&both(), named("docker")), "docker");
        let resources = Ask {
            resources: true,
            ..Ask::default()
        };
        assert_eq!(taker(&both(), resources), "docker");
        assert_eq!(
            taker(&both()[..1], resources),
            "process",
            "as well as it can"
        );
    }

    #[test]
    fn what_nobody_can_run_is_left_to_other_managers() {
        assert_eq!(choose(&both()[..1], image()), Choice::Nobody);
        assert_eq!(choose(&both(), named("kubernetes")), Choice::Nobody);
        assert_eq!(choose(&[], Ask::default()), Choice::Nobody);
    }

    #[test]
    fn what_asks_for_no_image_needs_a_backend_that_has_one_for_it() {
        let mut offers = both();
        offers.reverse();
        assert_eq!(taker(&offers, Ask::default()), "docker");
        offers[0].bare = false;
        assert_eq!(taker(&offers, Ask::default()), "process");
        assert_eq!(choose(&offers[..1], Ask::default()), Choice::Nobody);
        assert_eq!(taker(&offers[..1], image()), "docker");
    }

    #[test]
    fn who_is_asked_by_name_says_itself_what_it_cannot_do() {
        let ask = Ask {
            image: true,
            ..named("process")
        };
        assert_eq!(taker(&both(), ask), "process");
    }

    #[test]
    fn who_stays_away_is_asked_less_and_less() {
        let waits = [0, 1, 4, 5, u32::MAX].map(|failures| away_for(failures).as_millis());
        assert_eq!(waits, [500, 1000, 8000, 10_000, 10_000]);
    }

    #[test]
    fn what_has_no_room_overflows_to_the_next() {
        let mut offers = both();
        offers[0].room = Room::Full;
        assert_eq!(taker(&offers, Ask::default()), "docker");
        offers[1].room = Room::Full;
        let all = Choice::Full(vec!["process".into(), "docker".into()]);
        assert_eq!(choose(&offers, Ask::default()), all);
        let one = Choice::Full(vec!["docker".into()]);
        assert_eq!(choose(&offers, image()), one);
    }

    #[test]
    fn who_is_away_delays_only_what_nobody_else_runs() {
        let mut offers = both();
        offers[1].room = Room::Away(LATER);
        assert_eq!(taker(&offers, Ask::default()), "process");
        assert_eq!(choose(&offers, image()), Choice::Away(LATER));
        offers[0].room = Room::Full;
        let full = Choice::Full(vec!["process".into()]);
        assert_eq!(choose(&offers, Ask::default()), full);
        offers[0].room = Room::Away(Time::from_millis(9_000));
        assert_eq!(choose(&offers, Ask::default()), Choice::Away(LATER));
    }
}
