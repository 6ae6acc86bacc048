//! AppArmor profile and SELinux label, which the kernel puts on at execve.

use std::{ffi::CString, os::fd::OwnedFd};

use super::sysctl::{private_proc, write};
use crate::{Result, error::Doing, plan::ProcessPlan};

/// Whether there's anything to do.
pub(crate) fn wanted(process: &ProcessPlan) -> bool {
    process.apparmor.is_some() || process.selinux.is_some()
}

/// Asks for the profile or label; `proc` is a procfs of our PID namespace, a private one if None.
pub(crate) fn apply(process: &ProcessPlan) -> Result<()> {
    if !wanted(process) {
        return Ok(());
    }
    let proc = private_proc().doing(|| "mount a private procfs".to_owned())?;
    if let Some(profile) = &process.apparmor {
        let value = format!("exec {profile}");
        match attr(&proc, "apparmor/exec", &value).or_else(|_| attr(&proc, "exec", &value)) {
            // Where there is no AppArmor, everything is. (That it isn't there was found out before.)
            Err(e) if profile == "unconfined" && e.kind() != std::io::ErrorKind::PermissionDenied => {}
            other => other.doing(|| format!("ask for the AppArmor profile {profile:?} (is it loaded?)"))?,
        }
    }
    if let Some(label) = &process.selinux {
        attr(&proc, "keycreate", label)
            .and_then(|()| attr(&proc, "exec", label))
            .doing(|| format!("ask for the SELinux label {label:?} (is SELinux on?)"))?;
    }
    Ok(())
}

fn attr(proc: &OwnedFd, name: &str, value: &str) -> std::io::Result<()> {
    let path = CString::new(format!("{}/attr/{name}", std::process::id()))?;
    write(proc, &path, value.as_bytes())
}
