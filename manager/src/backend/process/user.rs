//! Another user whom runners run as.

use std::path::PathBuf;

use air_protocol::quote::quote;
use nix::unistd::{Gid, Group, Uid};

/// A user and a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// What the machine knows of it besides.
    pub(super) known: Option<Known>,
}

/// What the machine knows of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) name: String,
    pub(super) home: PathBuf,
}

impl User {
    /// The user of a text, `user` or `user:group`, by name or number.
    ///
    /// # Errors
    /// There is none, or this process may not start others as that one.
    pub(super) fn of(text: &str) -> Result<Self, String> {
        let user = Self::find(text)?;
        let (own, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
        let is_own = (user.uid, user.gid) == (own.as_raw(), group.as_raw());
        if own.is_root() || is_own {
            return Ok(user);
        }
        Err(format!(
            "`user` is `{}`, but this manager runs as user {own}, and only root can start processes as somebody else; run it as root, or leave `user` out",
            quote(text)
        ))
    }

    fn find(text: &str) -> Result<Self, String> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let found = match user.parse() {
            Ok(number) => nix::unistd::User::from_uid(Uid::from_raw(number)),
            Err(_) => nix::unistd::User::from_name(user),
        };
        let found = found.ok().flatten();
        let uid = found.as_ref().map(|found| found.uid.as_raw());
        let Some(uid) = uid.or_else(|| user.parse().ok()) else {
            return Err(format!(
                "`user` is `{}`, but there is no user `{}` on this machine",
                quote(text),
                quote(user)
            ));
        };
        let gid = match (group, &found) {
            (Some(group), _) => gid(group).ok_or_else(|| {
                format!(
                    "`user` is `{}`, but there is no group `{}` on this machine",
                    quote(text),
                    quote(group)
                )
            })?,
            (None, Some(found)) => found.gid.as_raw(),
            (None, None) => {
                return Err(format!(
                    "`user` is `{}`, a number without a name on this machine; write its group too, such as `{uid}:{uid}`",
                    quote(text)
                ));
            }
        };
        let known = found.map(|found| Known {
            name: found.name,
            home: found.dir,
        });
        Ok(Self { uid, gid, known })
    }
}

fn gid(group: &str) -> Option<u32> {
    if let Ok(number) = group.parse() {
        return Some(number);
    }
    let found = Group::from_name(group).ok().flatten();
    found.map(|found| Gid::as_raw(found.gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_and_by_number() {
        let root = User::find("root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(root.known.as_ref().unwrap().name, "root");
        assert_eq!(User::find("0").unwrap(), root);
        let numbers = User::find("4000000001:4000000002").unwrap();
        assert_eq!((numbers.uid, numbers.gid), (4_000_000_001, 4_000_000_002));
        assert_eq!(numbers.known, None);
    }

    #[test]
    fn who_is_not_there_is_named() {
        for (text, told) in [
            ("no-such-user", "no user `no-such-user`"),
            ("root:no-such-group", "no group `no-such-group`"),
            ("4000000001", "write its group too"),
            ("", "no user ``"),
        ] {
            let error = User::find(text).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
