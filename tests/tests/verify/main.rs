//! `airx verify` on real servers: what the system itself wrote is clean, and each kind of damage is named.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

mod clean;
mod damaged;
mod doubts;
mod told;

use air_tests::Installation;
use serde_json::Value;

/// What `airx verify` said.
struct Said {
    code: i32,
    json: Value,
}

/// Runs `airx verify` with these arguments.
#[track_caller]
fn verify(air: &Installation, arguments: &[&str]) -> Said {
    let mut all = vec!["verify", "-o", "json"];
    all.extend(arguments);
    let output = air.airx(&all).output().unwrap();
    let json = serde_json::from_slice(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    Said {
        code: output.status.code().unwrap_or(-1),
        json: json.unwrap_or_else(|error| panic!("{error}: {errors}")),
    }
}

impl Said {
    fn verdict(&self, invariant: &str) -> &str {
        let all = self.json["invariants"].as_array().unwrap();
        let is_it = |one: &&Value| one["invariant"].as_str().unwrap().starts_with(invariant);
        all.iter().find(is_it).unwrap()["verdict"].as_str().unwrap()
    }

    /// Nothing is refuted, and all is proven but what only hosts know.
    #[track_caller]
    fn is_proven(&self) {
        assert_eq!(self.code, 0, "{:#}", self.json);
        for number in [1, 2, 3, 4, 5, 7, 8] {
            let verdict = self.verdict(&format!("I{number} "));
            assert_eq!(verdict, "proven", "I{number}: {:#}", self.json);
        }
        assert_eq!(self.verdict("I6 "), "not-proven");
    }

    /// Nothing is refuted, and this invariant is not proven.
    #[track_caller]
    fn doubts(&self, invariant: &str) {
        assert_eq!(
            (self.code, self.verdict(invariant)),
            (0, "not-proven"),
            "{:#}",
            self.json
        );
    }

    /// A violation of this invariant with this text in it; gives back where it stands.
    #[track_caller]
    fn names(&self, invariant: &str, text: &str) -> Vec<(String, u64)> {
        assert_eq!(self.code, 1, "{:#}", self.json);
        assert_eq!(self.verdict(invariant), "refuted", "{:#}", self.json);
        let all = self.json["violations"].as_array().unwrap();
        let is_it = |one: &&Value| {
            let invariant_of = one["invariant"].as_str().unwrap();
            invariant_of.starts_with(invariant) && one["text"].as_str().unwrap().contains(text)
        };
        let found = all.iter().find(is_it);
        let found = found.unwrap_or_else(|| panic!("`{text}` is not in {:#}", self.json));
        let place = |place: &Value| {
            let subject = place["subject"].as_str().unwrap().to_owned();
            (subject, place["sequence"].as_u64().unwrap_or(0))
        };
        let places = found["at"].as_array().unwrap();
        places.iter().map(place).collect()
    }
}
