//! What we may do on this machine: all that its root may, or less.

use std::{fs, os::unix::fs::MetadataExt};

use corten_sys::capability;

const CAP_SETUID: u32 = 7;
const CAP_SYS_ADMIN: u32 = 21;

/// Whether we're in a user namespace other than the machine's first one.
///
/// That one has a fixed inode number (PROC_USER_INIT_INO in the kernel's proc_ns.h). Mappings don't tell: a namespace
/// may map every id to itself.
#[must_use]
pub fn in_user_namespace() -> bool {
    const FIRST: u64 = 0xEFFF_FFFD;
    fs::metadata("/proc/self/ns/user").is_ok_and(|metadata| metadata.ino() != FIRST)
}

/// Whether we lack what a runtime takes for granted: some other user than the machine's root, or root of a user
/// namespace. Cgroups may then belong to others.
#[must_use]
pub fn is_limited() -> bool {
    !nix::unistd::geteuid().is_root() || in_user_namespace()
}

/// Whether we can't make namespaces and mounts before we're in a user namespace of our own.
pub(crate) fn is_unprivileged() -> bool {
    !has(CAP_SYS_ADMIN)
}

/// Whether we may write any id map of those ids that we have ourselves.
pub(crate) fn may_map_ids() -> bool {
    has(CAP_SETUID)
}

fn has(number: u32) -> bool {
    capability::get().is_ok_and(|(effective, ..)| effective.has(number))
}

/// Whether processes of this user namespace may choose their supplementary groups; `process` is a pid or "self".
/// Once denied (for those who may map their own group only: leaving it could be a way in) it stays so.
pub(crate) fn may_set_groups(process: &str) -> bool {
    // Only a kernel without user namespaces doesn't have the file.
    fs::read(format!("/proc/{process}/setgroups")).map_or(true, |text| text.trim_ascii() != b"deny")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_told_by_their_inode() {
        let link = fs::read_link("/proc/self/ns/user").expect("readlink");
        assert_eq!(in_user_namespace(), link.as_os_str() != "user:[4026531837]");
    }
}
