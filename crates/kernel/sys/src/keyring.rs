//! Session keyrings: keyctl(2).

use std::{ffi::CStr, io};

use crate::check;

/// Joins the session keyring of that name, made if it doesn't exist; returns its serial number.
///
/// # Errors
/// ENOSYS if the kernel has no keyrings; EDQUOT if there are too many.
pub fn join_session(name: &CStr) -> io::Result<i32> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: name is a NUL-terminated string.
    let serial = check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) })?;
    Ok(serial as i32)
}

/// Lets processes of the same user find the keyring (KEY_USR_SEARCH), as login sessions have it.
///
/// # Errors
/// The kernel's.
pub fn allow_user_search(serial: i32) -> io::Result<()> {
    const SETPERM: libc::c_int = 5;
    const POSSESSOR_ALL: u32 = 0x3f00_0000;
    const USER_VIEW_READ_SEARCH: u32 = 0x000b_0000;
    let permissions = POSSESSOR_ALL | USER_VIEW_READ_SEARCH;
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_keyctl, SETPERM, serial, permissions) }).map(drop)
}
