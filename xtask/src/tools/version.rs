//! Versions as the tools print them.

use std::fmt;

/// Major, minor and patch; whatever follows (`-RC.1`) is not compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32, pub(super) u32);

impl Version {
    /// The first word of a `--version` answer that is a version: `nats-server: v2.15.1`, `cargo-deny 0.20.2`, `v0.5.1`.
    pub(super) fn find(answer: &str) -> Option<Self> {
        answer.split_whitespace().find_map(Self::parse)
    }

    fn parse(word: &str) -> Option<Self> {
        let word = word.strip_prefix('v').unwrap_or(word);
        let numbers = word.split(['-', '+']).next()?;
        let mut parts = numbers.split('.').map(|part| part.parse().ok());
        let version = Self(parts.next()??, parts.next()??, parts.next()??);
        parts.next().is_none().then_some(version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_what_each_tool_prints() {
        assert_eq!(
            Version::find("nats-server: v2.15.1\n"),
            Some(Version(2, 15, 1))
        );
        assert_eq!(Version::find("cargo-deny 0.20.2"), Some(Version(0, 20, 2)));
        assert_eq!(
            Version::find("nats-server: v2.14.0-RC.2"),
            Some(Version(2, 14, 0))
        );
        assert_eq!(Version::find("development"), None);
        assert_eq!(Version::find("1.2.3.4 2.5"), None);
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(Version(2, 9, 0) < Version(2, 14, 0));
        assert!(Version(2, 14, 0) < Version(2, 14, 1));
    }
}
