//! Paths hidden from a container, and what of the security context this node can't serve.

use std::path::Path;

use corten_cri_api::v1::{
    LinuxContainerSecurityContext, SeLinuxOption, SecurityProfile, security_profile::ProfileType,
};

use super::{Input, namespaces};
use crate::{Error, Result};

const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Masked and read-only paths: the request's, or the defaults where it names none. A privileged container sees all.
pub(super) fn hidden_paths(security: &LinuxContainerSecurityContext) -> (Vec<String>, Vec<String>) {
    fn or(asked: &[String], default: &[&str]) -> Vec<String> {
        if asked.is_empty() {
            default.iter().map(|path| (*path).to_owned()).collect()
        } else {
            asked.to_vec()
        }
    }
    if security.privileged {
        return (Vec::new(), Vec::new());
    }
    (or(&security.masked_paths, &MASKED), or(&security.readonly_paths, &READONLY))
}

/// An error for what the request asks for and nobody would carry out.
pub(super) fn refuse_unsupported(input: &Input<'_>) -> Result<()> {
    let security = input.security();
    namespaces::check(&input.options())?;
    if !input.config.cdi_devices.is_empty() {
        return Err(Error::Unsupported("CDI_devices".to_owned()));
    }
    if input.config.stdin {
        return Err(Error::Unsupported("a container with stdin".to_owned()));
    }
    #[expect(deprecated, reason = "clients older than the typed profile")]
    apparmor(security.apparmor.as_ref(), &security.apparmor_profile)?;
    if let Some(options) = &security.selinux_options {
        selinux(options)?;
    }
    Ok(())
}

/// The node's default and "unconfined" are the same where there is no AppArmor; a profile by name must be there.
fn apparmor(profile: Option<&SecurityProfile>, deprecated: &str) -> Result<()> {
    let named = match profile {
        Some(profile) => {
            (profile.profile_type() == ProfileType::Localhost).then_some(&*profile.localhost_ref)
        }
        None => deprecated.strip_prefix("localhost/"),
    };
    match named {
        Some(name) => Err(Error::Unsupported(format!("AppArmor profile {name:?}"))),
        None => Ok(()),
    }
}

/// Labels mean nothing on a node without SELinux, and clients send them regardless.
fn selinux(options: &SeLinuxOption) -> Result<()> {
    let empty = SeLinuxOption::default();
    if *options != empty && Path::new("/sys/fs/selinux/enforce").exists() {
        return Err(Error::Unsupported("selinux_options".to_owned()));
    }
    Ok(())
}
