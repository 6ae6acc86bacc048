//! Scheduling policy, I/O priority, CPU affinity and NUMA memory policy.

use std::io;

use crate::check;

/// What sched_setattr(2) takes.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scheduling {
    /// The size of this structure; set by [`set_scheduling`].
    pub size: u32,
    /// SCHED_* number.
    pub policy: u32,
    /// SCHED_FLAG_* bits.
    pub flags: u64,
    /// For SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// For SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// For SCHED_DEADLINE, nanoseconds.
    pub runtime: u64,
    /// For SCHED_DEADLINE, nanoseconds.
    pub deadline: u64,
    /// For SCHED_DEADLINE, nanoseconds.
    pub period: u64,
}

/// sched_setattr(2) on ourselves.
///
/// # Errors
/// EPERM, EINVAL.
pub fn set_scheduling(scheduling: &Scheduling) -> io::Result<()> {
    let attr = Scheduling { size: std::mem::size_of::<Scheduling>() as u32, ..*scheduling };
    // SAFETY: attr is a valid sched_attr of the first version, its size told in it.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) }).map(drop)
}

/// prctl(PR_SCHED_CORE_CREATE): from now on no SMT core runs us or what we start beside anyone else.
///
/// # Errors
/// ENODEV where cores have one thread, EINVAL where the kernel can't.
pub fn new_core_group() -> io::Result<()> {
    // Of the width that prctl(2), being variadic, reads.
    const CREATE: libc::c_ulong = libc::PR_SCHED_CORE_CREATE as libc::c_ulong;
    const OURSELVES: libc::c_ulong = 0;
    const THREAD_GROUP: libc::c_ulong = 1;
    const NO_COOKIE: libc::c_ulong = 0;
    let option = libc::PR_SCHED_CORE;
    // SAFETY: the last argument, where a cookie would go, is not used by this command and may be null.
    check(unsafe { libc::prctl(option, CREATE, OURSELVES, THREAD_GROUP, NO_COOKIE) }.into()).map(drop)
}

/// ioprio_set(2) on our process group: class 1 real-time, 2 best effort, 3 idle; priority 0 to 7.
///
/// # Errors
/// EPERM, EINVAL.
pub fn set_io_priority(class: u32, priority: u32) -> io::Result<()> {
    const WHO_PROCESS_GROUP: libc::c_int = 2;
    let value = class << 13 | priority;
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS_GROUP, 0, value) }).map(drop)
}

/// sched_setaffinity(2) of ourselves to the CPUs of which the bit is set.
///
/// # Errors
/// EINVAL if none of them is allowed.
pub fn set_affinity(cpus: &[u64]) -> io::Result<()> {
    // SAFETY: the pointer and the length in bytes are of the same slice.
    let ret =
        unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, std::mem::size_of_val(cpus), cpus.as_ptr()) };
    check(ret).map(drop)
}

/// set_mempolicy(2): `mode` with its flags, and the nodes of which the bit is set.
///
/// # Errors
/// EINVAL.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> io::Result<()> {
    // The kernel takes the number of bits plus one; and for none no mask at all, or it would be EINVAL.
    let bits = nodes.len() * 64 + 1;
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the mask is null, or the kernel reads at most `bits - 1` bits of it, which the slice has.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}
