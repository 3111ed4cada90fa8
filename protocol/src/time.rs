//! Points in time and spans of time as they stand in messages: RFC 3339 and `1h30m`.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::quote::quote;

/// A point in time, in milliseconds since 1970; written as RFC 3339 in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// From milliseconds since 1970.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The time `span` later.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// The time from `earlier` to this one; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The last moment that RFC 3339 can write (end of the year 9999).
const LAST_MILLIS: u64 = 253_402_300_799_999;

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = UNIX_EPOCH + Duration::from_millis(self.0.min(LAST_MILLIS));
        humantime::format_rfc3339_millis(time).fmt(f)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is no time or no span of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseTimeError {
    /// Not RFC 3339.
    #[error("`{}` is no time; write RFC 3339 in UTC, such as 2026-01-31T08:00:00Z", quote(.0))]
    Time(String),
    /// Not a span.
    #[error("`{}` is no duration; write one such as 90s, 30m or 1h30m", quote(.0))]
    Span(String),
}

impl FromStr for Time {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_rfc3339(text)
            .map(Self::from)
            .map_err(|_| ParseTimeError::Time(text.to_owned()))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// A span of time; written as `1h30m`, read also as a number of seconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = humantime::format_duration(self.0).to_string();
        f.pad(&text.replace(' ', ""))
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Span {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|_| ParseTimeError::Span(text.to_owned()))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SpanVisitor)
    }
}

struct SpanVisitor;

impl Visitor<'_> for SpanVisitor {
    type Value = Span;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as 30m, or a number of seconds")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Span, E> {
        Ok(Span(Duration::from_secs(seconds)))
    }

    fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Span, E> {
        u64::try_from(seconds)
            .map_err(|_| E::custom("a duration is not negative"))
            .and_then(|seconds| self.visit_u64(seconds))
    }
}

#[cfg(feature = "schema")]
mod schema {
    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    impl JsonSchema for super::Time {
        fn schema_name() -> Cow<'static, str> {
            "Time".into()
        }
        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({ "type": "string", "format": "date-time" })
        }
        fn inline_schema() -> bool {
            true
        }
    }

    impl JsonSchema for super::Span {
        fn schema_name() -> Cow<'static, str> {
            "Span".into()
        }
        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({
                "description": "a duration such as 30m or 1h30m, or a number of seconds",
                "oneOf": [{ "type": "string" }, { "type": "integer", "minimum": 0 }],
            })
        }
        fn inline_schema() -> bool {
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        let time: Time = "2026-01-31T08:00:00.250Z".parse().unwrap();
        assert_eq!(time.to_string(), "2026-01-31T08:00:00.250Z");
        assert!("yesterday".parse::<Time>().is_err());
    }

    #[test]
    fn spans_are_words_or_seconds() {
        for (json, text) in [
            ("\"30m\"", "30m"),
            ("90", "1m30s"),
            ("0", "0s"),
            ("\"0\"", "0s"),
        ] {
            let span: Span = serde_json::from_str(json).unwrap();
            assert_eq!(span.to_string(), text, "{json}");
        }
        assert!(serde_json::from_str::<Span>("-1").is_err());
        assert!(serde_json::from_str::<Span>("\"soon\"").is_err());
    }

    #[test]
    fn a_far_time_does_not_panic() {
        assert_eq!(
            Time::from_millis(u64::MAX).to_string(),
            "9999-12-31T23:59:59.999Z"
        );
    }

    #[test]
    fn times_are_milliseconds_since_1970() {
        let time = Time::from_millis(1_500);
        assert_eq!(time.as_millis(), 1_500);
        let later = time.after(Duration::from_millis(7));
        assert_eq!(later.as_millis(), 1_507);
        assert_eq!(later.since(time), Duration::from_millis(7));
        assert_eq!(time.since(later), Duration::ZERO);
        let system = UNIX_EPOCH + Duration::from_millis(1_500);
        assert_eq!(Time::from(system), time);
        assert_eq!(format!("{time:?}"), "1970-01-01T00:00:01.500Z");
        assert_eq!(
            serde_json::to_string(&time).unwrap(),
            r#""1970-01-01T00:00:01.500Z""#
        );
        let read: Time = serde_json::from_str(r#""1970-01-01T00:00:01.5Z""#).unwrap();
        assert_eq!(read, time);
    }

    #[test]
    fn a_span_is_written_as_it_is_read() {
        let span = Span(Duration::from_secs(5_400));
        assert_eq!(serde_json::to_string(&span).unwrap(), r#""1h30m""#);
        assert_eq!(format!("{span:?}"), "1h30m");
        let error = serde_json::from_str::<Span>("[]").unwrap_err().to_string();
        assert!(error.contains("such as 30m"), "{error}");
        let seconds: Span = rmp_serde::from_slice(&rmp_serde::to_vec(&90_i64).unwrap()).unwrap();
        assert_eq!(seconds, Span(Duration::from_secs(90)));
    }
}
