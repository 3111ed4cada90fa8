//! Money, tokens and turns that an agent's work took.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// US dollars, counted in millionths. In JSON a number of dollars, such as `0.25`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "f64"))]
#[serde(try_from = "f64", into = "f64")]
pub struct Usd(u64);

/// Millionths of a dollar.
const MICROS: f64 = 1e6;
/// The most that can be said: a billion dollars.
const DOLLARS_MAX: f64 = 1e9;

/// No amount of money.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no amount of US dollars; give a number from 0 to 1000000000, such as 0.25")]
pub struct UsdError(String);

impl Usd {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// An amount of millionths of a dollar.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Millionths of a dollar.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// The sum; the greatest amount stays.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference; nothing where the other one is greater.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl TryFrom<f64> for Usd {
    type Error = UsdError;

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range is checked"
    )]
    fn try_from(dollars: f64) -> Result<Self, UsdError> {
        if (0.0..=DOLLARS_MAX).contains(&dollars) {
            Ok(Self((dollars * MICROS).round() as u64))
        } else {
            Err(UsdError(dollars.to_string()))
        }
    }
}

impl From<Usd> for f64 {
    #[allow(
        clippy::cast_precision_loss,
        reason = "exact to a millionth up to a billion"
    )]
    fn from(usd: Usd) -> Self {
        usd.0 as Self / MICROS
    }
}

impl FromStr for Usd {
    type Err = UsdError;

    fn from_str(text: &str) -> Result<Self, UsdError> {
        let wrong = || UsdError(crate::quote::quote(text).to_string());
        let dollars: f64 = text.trim().parse().map_err(|_| wrong())?;
        Self::try_from(dollars).map_err(|_| wrong())
    }
}

impl fmt::Display for Usd {
    /// Dollars and cents; as many digits as it takes below a cent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dollars, micros) = (self.0 / 1_000_000, self.0 % 1_000_000);
        let digits = format!("{micros:06}");
        let rest = digits.trim_end_matches('0');
        write!(f, "{dollars}.{rest:0<2} USD")
    }
}

/// What an agent's work took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Cost {
    /// Money, in US dollars.
    pub usd: Usd,
    /// Tokens that the model read, without those of the cache.
    pub input_tokens: u64,
    /// Tokens that the model wrote.
    pub output_tokens: u64,
    /// Tokens that were read from the cache.
    pub cache_read_tokens: u64,
    /// Tokens that were written to the cache.
    pub cache_write_tokens: u64,
    /// Turns of the model.
    pub turns: u64,
}

impl Cost {
    /// The sum; the greatest counts stay.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            usd: self.usd.plus(other.usd),
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            cache_read_tokens: self
                .cache_read_tokens
                .saturating_add(other.cache_read_tokens),
            cache_write_tokens: self
                .cache_write_tokens
                .saturating_add(other.cache_write_tokens),
            turns: self.turns.saturating_add(other.turns),
        }
    }

    /// Tokens of every kind.
    pub const fn tokens(self) -> u64 {
        self.input_tokens
            .saturating_add(self.output_tokens)
            .saturating_add(self.cache_read_tokens)
            .saturating_add(self.cache_write_tokens)
    }

    /// Whether nothing was taken.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cached = self
            .cache_read_tokens
            .saturating_add(self.cache_write_tokens);
        write!(
            f,
            "{}, {} turns, {} tokens read, {cached} of the cache, {} written",
            self.usd, self.turns, self.input_tokens, self.output_tokens
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_exact_to_a_millionth() {
        for (text, micros, shown) in [
            ("0", 0, "0.00 USD"),
            ("0.00075", 750, "0.00075 USD"),
            ("1.5", 1_500_000, "1.50 USD"),
            ("1000000000", 1_000_000_000_000_000, "1000000000.00 USD"),
        ] {
            let usd: Usd = text.parse().unwrap();
            assert_eq!((usd.micros(), usd.to_string()), (micros, shown.to_owned()));
            let json = serde_json::to_string(&usd).unwrap();
            assert_eq!(serde_json::from_str::<Usd>(&json).unwrap(), usd);
        }
        for text in ["-1", "NaN", "inf", "1e10", "five"] {
            let error = text.parse::<Usd>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("0.25"), "{error}");
        }
        assert_eq!(serde_json::from_str::<Usd>("2").unwrap(), Usd(2_000_000));
    }

    #[test]
    fn all_that_an_agent_took_is_told() {
        let cost = Cost {
            usd: Usd(30_000),
            input_tokens: 1,
            output_tokens: 2,
            cache_read_tokens: 30,
            cache_write_tokens: 4,
            turns: 5,
        };
        let told = "0.03 USD, 5 turns, 1 tokens read, 34 of the cache, 2 written";
        assert_eq!(cost.to_string(), told);
    }

    #[test]
    fn sums_stay_at_the_greatest() {
        let most = Cost {
            usd: Usd(u64::MAX),
            input_tokens: u64::MAX,
            turns: 3,
            ..Cost::default()
        };
        let sum = most.plus(Cost {
            usd: Usd(1),
            output_tokens: 2,
            turns: 4,
            ..Cost::default()
        });
        assert_eq!((sum.usd, sum.turns), (Usd(u64::MAX), 7));
        assert_eq!(sum.tokens(), u64::MAX);
        assert_eq!(Usd(3).minus(Usd(5)), Usd::ZERO);
        assert!(Cost::default().is_nothing() && !sum.is_nothing());
    }
}
