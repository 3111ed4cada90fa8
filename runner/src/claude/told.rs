//! When a limit is lifted, as the service's texts tell it. Pure.

use std::time::Duration;

use air_protocol::time::Time;

const DAY_MS: u64 = 24 * 3600 * 1000;
/// A time further away is none that a limit is lifted at.
const AHEAD_MAX: Duration = Duration::from_secs(14 * 24 * 3600);

/// The time that a text tells: RFC 3339 in UTC, seconds since 1970 behind a `|`, a time of the day in UTC behind
/// `resets`, or seconds from now in `retry after`.
pub(super) fn time_in(text: &str, now: Time) -> Option<Time> {
    let words = || text.split(|c: char| c.is_whitespace() || "()|,;·∙".contains(c));
    let exact = words().find_map(|word| word.trim_end_matches('.').parse::<Time>().ok());
    let found = exact
        .or_else(|| epoch(text))
        .or_else(|| seconds(text, now))
        .or_else(|| time_of_day(text, now))?;
    (found <= now.after(AHEAD_MAX)).then_some(found)
}

/// Seconds since 1970, as in `limit reached|1795910000`.
fn epoch(text: &str) -> Option<Time> {
    let (_, behind) = text.rsplit_once('|')?;
    of_epoch(behind.trim().parse().ok()?)
}

/// A time in seconds since 1970.
pub(super) fn of_epoch(seconds: u64) -> Option<Time> {
    (1_000_000_000..100_000_000_000)
        .contains(&seconds)
        .then(|| Time::from_millis(seconds * 1000))
}

/// `retry after 90 seconds`, `try again in 5 minutes`.
fn seconds(text: &str, now: Time) -> Option<Time> {
    let text = text.to_ascii_lowercase();
    let behind = ["retry after ", "try again in ", "resets in "]
        .iter()
        .find_map(|mark| text.split_once(mark).map(|(_, behind)| behind))?;
    let mut words = behind.split_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    let factor = match words.next()?.trim_end_matches(['.', ',', ')']) {
        "s" | "second" | "seconds" => 1,
        "m" | "min" | "minute" | "minutes" => 60,
        "h" | "hour" | "hours" => 3600,
        _ => return None,
    };
    Some(now.after(Duration::from_secs(number.checked_mul(factor)?)))
}

/// `resets 3pm (UTC)`, `resets at 11:30am (UTC)`: the next such time. Of other zones nothing is known here.
fn time_of_day(text: &str, now: Time) -> Option<Time> {
    let text = text.to_ascii_lowercase();
    let (_, behind) = text.split_once("resets ")?;
    let behind = behind.strip_prefix("at ").unwrap_or(behind);
    let (clock, zone) = behind.split_once('(')?;
    if !zone.starts_with("utc)") {
        return None;
    }
    let clock = clock.trim();
    let (clock, noon) = match clock.strip_suffix("pm") {
        Some(clock) => (clock, 12),
        None => (clock.strip_suffix("am")?, 0),
    };
    let (hour, minute) = clock.split_once(':').unwrap_or((clock, "0"));
    let (hour, minute): (u64, u64) = (hour.trim().parse().ok()?, minute.parse().ok()?);
    if !(1..=12).contains(&hour) || minute > 59 {
        return None;
    }
    let of_day = ((hour % 12 + noon) * 60 + minute) * 60 * 1000;
    let now_ms = now.as_millis();
    let today = now_ms - now_ms % DAY_MS + of_day;
    Some(Time::from_millis(if today > now_ms {
        today
    } else {
        today + DAY_MS
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_as_they_are_told() {
        let now: Time = "2026-11-28T14:00:00Z".parse().unwrap();
        for (text, at) in [
            (
                "limit reached, resets at 2026-11-28T23:00:00Z",
                Some("2026-11-28T23:00:00Z"),
            ),
            (
                "It resets at 2026-11-28T23:00:00Z.",
                Some("2026-11-28T23:00:00Z"),
            ),
            (
                "Claude AI usage limit reached|1795910000",
                Some("2026-11-28T23:53:20Z"),
            ),
            (
                "5-hour limit reached ∙ resets 3pm (UTC)",
                Some("2026-11-28T15:00:00Z"),
            ),
            (
                "You've hit your limit · resets at 11:30am (UTC)",
                Some("2026-11-29T11:30:00Z"),
            ),
            ("resets 12am (UTC)", Some("2026-11-29T00:00:00Z")),
            ("resets 12pm (UTC)", Some("2026-11-29T12:00:00Z")),
            (
                "please try again in 5 minutes.",
                Some("2026-11-28T14:05:00Z"),
            ),
            ("retry after 90 seconds", Some("2026-11-28T14:01:30Z")),
            ("resets 3pm (Europe/Berlin)", None),
            ("resets 13pm (UTC)", None),
            ("resets 3pm", None),
            ("Request rejected (429)", None),
            ("|5", None),
            ("resets at 2999-11-28T23:00:00Z", None),
            ("retry after 99999999999999999999 seconds", None),
            ("retry after 9999999999999999999 hours", None),
        ] {
            let at = at.map(|at| at.parse::<Time>().unwrap());
            assert_eq!(time_in(text, now), at, "{text}");
        }
    }
}
