//! The quick scenarios of the search: no state that they reach breaks an invariant, and from each every
//! job ends.

use std::time::Duration;

use air_model::search::scenario;
use air_model::search::table::{HEAD, search};

#[test]
fn no_state_breaks_an_invariant() {
    println!("{HEAD}");
    for scenario in scenario::all().into_iter().filter(|one| !one.long) {
        let found = search(scenario, None, Duration::from_secs(120), 2);
        println!("{}", found.line());
        if let Some(broken) = found.broken {
            panic!("{}: {}: {:#?}", found.name, broken.text, broken.steps);
        }
        assert!(found.whole, "{} was cut", found.name);
    }
}
