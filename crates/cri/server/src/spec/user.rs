//! Whom a container runs as: the request's user or the image's, looked up in the image's own passwd and group files.
//!
//! The files come from whoever made the image: they are read with a bound and a line that makes no sense is skipped.

use corten_cri_api::v1::{LinuxContainerSecurityContext, SupplementalGroupsPolicy};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The numeric identity of a container's first process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The primary group and the supplementary ones.
    pub(crate) groups: Vec<u32>,
}

/// The content of the image's `/etc/passwd` and `/etc/group`; empty where there is none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Accounts {
    pub(crate) passwd: Vec<u8>,
    pub(crate) group: Vec<u8>,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

impl Accounts {
    fn find(&self, matches: impl Fn(&Account<'_>) -> bool) -> Option<Account<'_>> {
        lines(&self.passwd)
            .filter_map(|line| {
                let mut fields = line.split(':');
                let name = fields.next()?;
                let uid = fields.nth(1)?.parse().ok()?;
                let gid = fields.next()?.parse().ok()?;
                Some(Account { name, uid, gid })
            })
            .find(matches)
    }

    /// The groups of the file as name, id and members.
    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        lines(&self.group).filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let gid = fields.nth(1)?.parse().ok()?;
            Some((name, gid, fields.next().unwrap_or("")))
        })
    }

    fn groups_of<'a>(&'a self, user: &'a str) -> impl Iterator<Item = u32> + 'a {
        self.groups()
            .filter(move |(_, _, members)| members.split(',').any(|m| m == user))
            .map(|(_, gid, _)| gid)
    }

    fn gid(&self, group: &str) -> Result<u32> {
        if let Ok(gid) = group.parse() {
            return Ok(gid);
        }
        let found = self.groups().find(|(name, ..)| *name == group);
        found.map(|(_, gid, _)| gid).ok_or_else(|| {
            Error::invalid(format!("group {group:?} of the image isn't in the image's /etc/group"))
        })
    }

    fn user<'a>(&'a self, user: &'a str) -> Result<Account<'a>> {
        if let Some(account) = self.find(|account| account.name == user) {
            return Ok(account);
        }
        let uid: u32 = user
            .parse()
            .map_err(|_| Error::invalid(format!("user {user:?} isn't in the image's /etc/passwd")))?;
        Ok(self.find(|account| account.uid == uid).unwrap_or(Account { name: "", uid, gid: 0 }))
    }
}

fn lines(file: &[u8]) -> impl Iterator<Item = &str> {
    file.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok())
}

/// Who the request and the image (`USER` of its configuration) say it is.
pub(crate) fn resolve(
    security: &LinuxContainerSecurityContext,
    image_user: &str,
    accounts: &Accounts,
) -> Result<Identity> {
    let account = if let Some(uid) = &security.run_as_user {
        let uid = id(uid.value, "run_as_user")?;
        accounts.find(|account| account.uid == uid).unwrap_or(Account { name: "", uid, gid: 0 })
    } else if !security.run_as_username.is_empty() {
        accounts.user(&security.run_as_username)?
    } else if security.run_as_group.is_some() {
        return Err(Error::invalid("run_as_group needs run_as_user or run_as_username"));
    } else {
        let (user, group) = image_user.split_once(':').unwrap_or((image_user, ""));
        let mut account = accounts.user(if user.is_empty() { "0" } else { user })?;
        if !group.is_empty() {
            account.gid = accounts.gid(group)?;
        }
        account
    };
    let gid = match &security.run_as_group {
        Some(group) => id(group.value, "run_as_group")?,
        None => account.gid,
    };
    let mut groups = vec![gid];
    if security.supplemental_groups_policy() == SupplementalGroupsPolicy::Merge && !account.name.is_empty() {
        groups.extend(accounts.groups_of(account.name));
    }
    for group in &security.supplemental_groups {
        groups.push(id(*group, "supplemental_groups")?);
    }
    let mut seen = std::collections::HashSet::new();
    groups.retain(|group| seen.insert(*group));
    Ok(Identity { uid: account.uid, gid, groups })
}

/// An id as CRI carries it. A wider number would wrap to someone else, root at worst.
fn id(value: i64, field: &str) -> Result<u32> {
    match u32::try_from(value) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(Error::invalid(format!("{field}: {value} is no user or group id"))),
    }
}

#[cfg(test)]
mod tests {
    use corten_cri_api::v1::Int64Value;

    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd:
                b"root:x:0:0:root:/root:/bin/sh\nbroken\n\xff\xfe:x:1:1\nann:x:1000:100::/home/ann:/bin/sh\n"
                    .to_vec(),
            group: b"root:x:0:\nwheel:x:10:root,ann\nusers:x:100:\ndisk:x:6:root\n".to_vec(),
        }
    }

    fn security() -> LinuxContainerSecurityContext {
        LinuxContainerSecurityContext::default()
    }

    #[test]
    fn the_image_says_who() {
        let of = |user: &str| resolve(&security(), user, &accounts());
        assert_eq!(of("").expect("root"), Identity { uid: 0, gid: 0, groups: vec![0, 10, 6] });
        assert_eq!(of("ann").expect("by name"), Identity { uid: 1000, gid: 100, groups: vec![100, 10] });
        assert_eq!(of("1000:wheel").expect("group"), Identity { uid: 1000, gid: 10, groups: vec![10] });
        assert_eq!(of("7:8").expect("numbers"), Identity { uid: 7, gid: 8, groups: vec![8] });
        assert!(of("bob").expect_err("unknown").to_string().contains("bob"));
        assert!(of("ann:staff").expect_err("unknown").to_string().contains("staff"));
    }

    #[test]
    fn the_request_wins() {
        let asked = LinuxContainerSecurityContext {
            run_as_user: Some(Int64Value { value: 1000 }),
            supplemental_groups: vec![5, 10],
            ..security()
        };
        let merged = resolve(&asked, "root", &accounts()).expect("resolved");
        assert_eq!(merged, Identity { uid: 1000, gid: 100, groups: vec![100, 10, 5] });
        let strict = LinuxContainerSecurityContext {
            supplemental_groups_policy: SupplementalGroupsPolicy::Strict.into(),
            supplemental_groups: vec![5],
            ..asked
        };
        assert_eq!(resolve(&strict, "", &accounts()).expect("resolved").groups, [100, 5]);
    }

    #[test]
    fn ids_that_would_wrap_are_refused() {
        for value in [-1, 1 << 32, i64::from(u32::MAX)] {
            let asked =
                LinuxContainerSecurityContext { run_as_user: Some(Int64Value { value }), ..security() };
            assert!(resolve(&asked, "", &accounts()).is_err(), "{value}");
        }
    }

    #[test]
    fn a_group_alone_is_refused() {
        let asked =
            LinuxContainerSecurityContext { run_as_group: Some(Int64Value { value: 1 }), ..security() };
        assert!(resolve(&asked, "ann", &accounts()).is_err());
    }
}
