//! Sysctls and names, through a private procfs: the container's own /proc may be anything by now (CVE-2025-52881).

use std::{
    ffi::CStr,
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
};

use corten_sys::{
    mount::{Attributes, Filesystem},
    path::open_beneath,
    process::set_domainname,
};
use nix::{libc, unistd::sethostname};

use super::mount::show;
use crate::{Result, error::Doing, plan::Plan};

/// Sets hostname and domain name.
pub(crate) fn names(plan: &Plan) -> Result<()> {
    if let Some(name) = &plan.hostname {
        sethostname(name).doing(|| format!("set the hostname {name:?}"))?;
    }
    if let Some(name) = &plan.domainname {
        set_domainname(name).doing(|| format!("set the domain name {name:?}"))?;
    }
    Ok(())
}

/// Sets all sysctls.
pub(crate) fn set(plan: &Plan) -> Result<()> {
    if plan.sysctl.is_empty() {
        return Ok(());
    }
    let proc = private_proc().doing(|| "mount a private procfs".to_owned())?;
    for (key, value) in &plan.sysctl {
        let path = [c"sys/".to_bytes(), key.to_bytes()].concat();
        let path = std::ffi::CString::new(path).map_err(io::Error::from);
        path.and_then(|path| write(&proc, &path, value.as_bytes()))
            .doing(|| format!("set sysctl {} to {value:?}", show(key)))?;
    }
    Ok(())
}

/// A procfs of our PID namespace that nobody else sees.
pub(crate) fn private_proc() -> io::Result<OwnedFd> {
    Filesystem::open(c"proc")?.mount(Attributes::NOSUID | Attributes::NODEV | Attributes::NOEXEC)
}

/// Writes a file of `proc`, in one write.
pub(crate) fn write(proc: &OwnedFd, path: &CStr, value: &[u8]) -> io::Result<()> {
    let file = open_beneath(proc.as_fd(), path, libc::O_WRONLY, 0)?;
    File::from(file).write_all(value)
}
