//! Writing uid_map and gid_map of a new user namespace (user_namespaces(7)).
//!
//! Who has CAP_SETUID writes what it likes. Everybody else may map the own user and group, and nothing more; for the
//! ids of /etc/subuid and /etc/subgid there are newuidmap(1) and newgidmap(1), which are set-user-id.

use std::{io, process::Command};

use nix::unistd::{getegid, geteuid};

use crate::{Result, error::Doing, plan::NamespacePlan, privilege::may_map_ids, procfs::Proc};

/// Writes both maps of the user namespace that process `pid` is in.
pub(crate) fn write(pid: i32, plan: &NamespacePlan) -> Result<()> {
    let own = is_own(&plan.uid_map, geteuid().as_raw()) && is_own(&plan.gid_map, getegid().as_raw());
    let capable = may_map_ids();
    if !capable && !own {
        helper("newuidmap", pid, &plan.uid_map)?;
        return helper("newgidmap", pid, &plan.gid_map);
    }
    let proc = Proc::mounted().doing(|| "open /proc".to_owned())?;
    let put = |name: &str, value: &str| {
        proc.write_of(pid, name, value)
            .doing(|| format!("write {name} of container init: {:?}", value.trim_end()))
    };
    if !capable {
        // The kernel wants this of those who map their own group without being able to leave it.
        put("setgroups", "deny")?;
    }
    put("uid_map", &plan.uid_map)?;
    put("gid_map", &plan.gid_map)
}

/// Whether the map is of one id, our own.
fn is_own(map: &str, id: u32) -> bool {
    let fields: Vec<&str> = map.split_whitespace().collect();
    matches!(fields.as_slice(), [_, host, "1"] if host.parse() == Ok(id))
}

fn helper(program: &str, pid: i32, map: &str) -> Result<()> {
    let shown = map.trim_end().replace('\n', ", ");
    let doing = || format!("map ids {shown:?} with {program}");
    let output = match Command::new(program).arg(pid.to_string()).args(map.split_whitespace()).output() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(other(
                "it isn't there: without root, more ids than one's own need newuidmap and newgidmap (package uidmap)",
            ))
            .doing(doing);
        }
        other => other.doing(doing)?,
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(other(&format!(
        "{said} ({}; may this user have these ids, by /etc/subuid and /etc/subgid?)",
        output.status
    )))
    .doing(doing)
}

fn other(text: &str) -> io::Error {
    io::Error::other(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_own_id_needs_nobody() {
        assert!(is_own("0 1000 1\n", 1000));
        for other in ["0 1000 2\n", "0 1001 1\n", "0 1000 1\n1 100000 1\n", ""] {
            assert!(!is_own(other, 1000), "{other:?}");
        }
    }
}
