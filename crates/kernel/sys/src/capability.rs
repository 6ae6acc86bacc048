//! Capabilities as bit sets (capabilities(7)); names come from the caps crate.

use std::io;

use caps::Capability;

use crate::check;

/// The names of all capabilities so far; the kernel's number of each is its index (`linux/capability.h`).
pub const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// A set of capabilities; bit n is the kernel's capability n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Set(pub u64);

impl Set {
    /// Every capability that a u64 can hold.
    pub const ALL: Self = Self(u64::MAX);

    /// Adds a capability by its name (`CAP_...`); false if there's none of that name.
    pub fn insert_name(&mut self, name: &str) -> bool {
        let Ok(capability) = name.parse::<Capability>() else { return false };
        self.0 |= capability.bitmask();
        true
    }

    /// Whether the capability with the kernel's number is in the set.
    #[must_use]
    pub fn has(self, number: u32) -> bool {
        number < 64 && self.0 >> number & 1 == 1
    }

    /// The members of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The kernel's numbers of the members.
    pub fn numbers(self) -> impl Iterator<Item = u32> {
        (0..64).filter(move |&n| self.has(n))
    }
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;

/// Effective, permitted and inheritable set of this thread.
///
/// # Errors
/// The kernel's.
pub fn get() -> io::Result<(Set, Set, Set)> {
    let header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 takes this header and two Data.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) })?;
    let [low, high] = data;
    let join = |low: u32, high: u32| Set(u64::from(low) | u64::from(high) << 32);
    Ok((
        join(low.effective, high.effective),
        join(low.permitted, high.permitted),
        join(low.inheritable, high.inheritable),
    ))
}

/// Sets effective, permitted and inheritable set of this thread.
///
/// # Errors
/// EPERM if a set grows beyond what is permitted.
pub fn set(effective: Set, permitted: Set, inheritable: Set) -> io::Result<()> {
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| Data {
        effective: (effective.0 >> shift) as u32,
        permitted: (permitted.0 >> shift) as u32,
        inheritable: (inheritable.0 >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 takes this header and two Data.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// Drops from the bounding set everything that isn't in `keep`.
///
/// # Errors
/// EPERM without CAP_SETPCAP.
pub fn limit_bounding(keep: Set) -> io::Result<()> {
    for number in 0..64 {
        if keep.has(number) {
            continue;
        }
        match check(prctl(libc::PR_CAPBSET_DROP, number.into(), 0)) {
            Ok(_) => {}
            // Past the last one that this kernel knows.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => break,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Clears the ambient set and raises `set` in it.
///
/// # Errors
/// EPERM for one that isn't both permitted and inheritable.
pub fn set_ambient(set: Set) -> io::Result<()> {
    let (ambient, clear, raise) =
        (libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, libc::PR_CAP_AMBIENT_RAISE);
    check(prctl(ambient, clear as libc::c_ulong, 0))?;
    for number in set.numbers() {
        check(prctl(ambient, raise as libc::c_ulong, number.into()))?;
    }
    Ok(())
}

/// prctl(2) is variadic and reads unsigned longs: a narrower argument's upper half could be anything, where the kernel wants
/// zeroes.
fn prctl(option: libc::c_int, second: libc::c_ulong, third: libc::c_ulong) -> libc::c_long {
    const NONE: libc::c_ulong = 0;
    // SAFETY: what this module asks for takes no pointers.
    unsafe { libc::prctl(option, second, third, NONE, NONE) }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_at_the_kernels_numbers() {
        for (number, name) in NAMES.iter().enumerate() {
            let mut set = Set::default();
            assert!(set.insert_name(name), "{name}");
            assert_eq!(set, Set(1 << number), "{name}");
        }
        assert_eq!(NAMES.len(), caps::all().len());
    }

    #[test]
    fn names_become_the_kernels_bits() {
        let mut set = Set::default();
        assert!(set.insert_name("CAP_CHOWN"));
        assert!(set.insert_name("CAP_CHECKPOINT_RESTORE"));
        assert!(!set.insert_name("CAP_NOT_A_CAPABILITY"));
        assert_eq!(set, Set(1 | 1 << 40));
        assert_eq!(set.numbers().collect::<Vec<_>>(), [0, 40]);
    }

    #[test]
    fn effective_is_within_permitted() {
        let (effective, permitted, _) = get().expect("capget");
        assert_eq!(effective.and(permitted), effective);
    }
}
