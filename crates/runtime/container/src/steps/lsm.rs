//! AppArmor profile and SELinux label, which the kernel puts on at execve.

use crate::{Result, error::Doing, plan::ProcessPlan, procfs::Proc};

/// Whether there's anything to do.
pub(crate) fn wanted(process: &ProcessPlan) -> bool {
    process.apparmor.is_some() || process.selinux.is_some()
}

/// Asks for the profile or label.
pub(crate) fn apply(process: &ProcessPlan) -> Result<()> {
    if !wanted(process) {
        return Ok(());
    }
    let proc = Proc::private().doing(|| "mount a private procfs".to_owned())?;
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

fn attr(proc: &Proc, name: &str, value: &str) -> std::io::Result<()> {
    proc.write_of(std::process::id().cast_signed(), &format!("attr/{name}"), value)
}
