//! Loading a BPF program that decides which devices a cgroup may use, and attaching it: bpf(2).

use std::{
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use crate::check;

/// One instruction; the same layout as the kernel's `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination in the lower four bits, source in the upper.
    pub registers: u8,
    /// How many instructions to jump, or where to load from.
    pub offset: i16,
    /// Operand.
    pub immediate: i32,
}

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
const REPLACE: u32 = 4;
/// How a program of ours is told from others' on the same cgroup (at most 15 bytes).
const NAME: &[u8; 16] = b"corten_devices\0\0";

/// The beginning of `union bpf_attr` for BPF_PROG_LOAD; the kernel takes what follows as zero.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// The beginning of `union bpf_attr` for BPF_PROG_ATTACH.
#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

/// The same for BPF_PROG_QUERY.
#[repr(C)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    /// Kernels before 6.0 refuse anything but zeros after `prog_cnt`: no padding, which could be anything.
    zero: u32,
    /// Lists that aren't asked for.
    lists: [u64; 3],
    /// A kernel that knows it (6.17) writes it: there has to be room, however it takes the size that it is told.
    revision: u64,
}

/// The same for BPF_PROG_GET_FD_BY_ID.
#[repr(C)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// The same for BPF_OBJ_GET_INFO_BY_FD.
#[repr(C)]
struct InfoByFd {
    fd: u32,
    len: u32,
    info: u64,
}

/// The beginning of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_prog_len: u32,
    xlated_prog_len: u32,
    jited_prog_insns: u64,
    xlated_prog_insns: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; 16],
}

/// Loads a program of type CGROUP_DEVICE.
///
/// # Errors
/// EPERM without CAP_BPF (or CAP_SYS_ADMIN); EINVAL, EACCES if the verifier rejects the program.
pub fn load_cgroup_device(program: &[Instruction]) -> io::Result<OwnedFd> {
    let load = Load {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        insns: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: *NAME,
    };
    // SAFETY: the attributes have the size told and point to insn_cnt instructions and a C string, which the
    // kernel copies before it returns.
    let fd = check(unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size_of::<Load>()) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Attaches a program to a cgroup (an open v2 directory), beside those that are there: all have to allow. With
/// `instead_of` it takes that one's place, with no moment in between. It stays as long as the cgroup.
///
/// # Errors
/// The kernel's.
pub fn attach_cgroup_device(
    program: &impl AsFd,
    cgroup: &impl AsFd,
    instead_of: Option<&OwnedFd>,
) -> io::Result<()> {
    let attach = Attach {
        target_fd: number(cgroup),
        attach_bpf_fd: number(program),
        attach_type: CGROUP_DEVICE,
        attach_flags: if instead_of.is_some() { ALLOW_MULTI | REPLACE } else { ALLOW_MULTI },
        replace_bpf_fd: instead_of.map_or(0, number),
    };
    // SAFETY: the attributes have the size told and hold no pointers.
    check(unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attach, size_of::<Attach>()) })?;
    Ok(())
}

/// The program that [`load_cgroup_device`] has made and that is attached to a cgroup, if there is one. Programs of
/// others are left out.
///
/// # Errors
/// The kernel's.
pub fn attached_cgroup_device(cgroup: &impl AsFd) -> io::Result<Option<OwnedFd>> {
    let mut ids = [0_u32; 64];
    let mut query = Query {
        target_fd: number(cgroup),
        attach_type: CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: 64,
        zero: 0,
        lists: [0; 3],
        revision: 0,
    };
    // SAFETY: the attributes have the size told and point to room for prog_cnt numbers, more than a cgroup can have.
    check(unsafe { libc::syscall(libc::SYS_bpf, PROG_QUERY, &raw mut query, size_of::<Query>()) })?;
    for id in ids.into_iter().take(query.prog_cnt as usize) {
        let by_id = ById { id, next_id: 0, open_flags: 0 };
        // SAFETY: the attributes have the size told and hold no pointers.
        let fd = check(unsafe {
            libc::syscall(libc::SYS_bpf, PROG_GET_FD_BY_ID, &raw const by_id, size_of::<ById>())
        });
        let fd = match fd {
            // It was detached meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
            other => other?,
        };
        // SAFETY: the kernel has just made this descriptor for us.
        let program = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        if name(&program)? == *NAME {
            return Ok(Some(program));
        }
    }
    Ok(None)
}

fn name(program: &OwnedFd) -> io::Result<[u8; 16]> {
    let mut info = Info::default();
    let mut by_fd =
        InfoByFd { fd: number(program), len: size_of::<Info>() as u32, info: (&raw mut info) as u64 };
    // SAFETY: the attributes have the size told and point to `len` bytes of plain data, which the kernel fills in; the
    // pointers and counts in it are zero, for which it leaves the lists out.
    check(unsafe {
        libc::syscall(libc::SYS_bpf, OBJ_GET_INFO_BY_FD, &raw mut by_fd, size_of::<InfoByFd>())
    })?;
    Ok(info.name)
}

fn number(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel reads all bytes of what it is given, and padding isn't initialised.
    #[test]
    fn nothing_is_padded() {
        for (name, fields, size) in [
            ("Load", 2 * 4 + 2 * 8 + 2 * 4 + 8 + 2 * 4 + 16, size_of::<Load>()),
            ("Attach", 5 * 4, size_of::<Attach>()),
            ("Query", 4 * 4 + 8 + 2 * 4 + 3 * 8 + 8, size_of::<Query>()),
            ("ById", 3 * 4, size_of::<ById>()),
            ("InfoByFd", 2 * 4 + 8, size_of::<InfoByFd>()),
            ("Info", 2 * 4 + 8 + 2 * 4 + 3 * 8 + 2 * 4 + 8 + 16, size_of::<Info>()),
        ] {
            assert_eq!(fields, size, "{name}");
        }
    }
}
