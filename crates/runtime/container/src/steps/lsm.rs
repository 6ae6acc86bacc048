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
        attr(&proc, "exec", label).doing(|| asking(label))?;
    }
    Ok(())
}

/// Runs `make`, which makes or finds a keyring: with the SELinux label of the process, who couldn't use it else.
pub(crate) fn with_key_label(process: &ProcessPlan, make: impl FnOnce()) -> Result<()> {
    let Some(label) = &process.selinux else {
        make();
        return Ok(());
    };
    let proc = Proc::private().doing(|| "mount a private procfs".to_owned())?;
    attr(&proc, "keycreate", label).doing(|| asking(label))?;
    make();
    // A line without a label is none.
    attr(&proc, "keycreate", "\n").doing(|| "take back the SELinux label for keys".to_owned())
}

fn asking(label: &str) -> String {
    format!("ask for the SELinux label {label:?} (does the policy know it?)")
}

fn attr(proc: &Proc, name: &str, value: &str) -> std::io::Result<()> {
    proc.write_of(std::process::id().cast_signed(), &format!("attr/{name}"), value)
}
