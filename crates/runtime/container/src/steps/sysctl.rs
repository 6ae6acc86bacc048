//! Sysctls and names, through a private procfs: the container's own /proc may be anything by now (CVE-2025-52881).

use std::{ffi::CString, io};

use corten_sys::process::set_domainname;
use nix::unistd::sethostname;

use super::mount::show;
use crate::{Result, error::Doing, plan::Plan, procfs::Proc};

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
    let proc = Proc::private().doing(|| "mount a private procfs".to_owned())?;
    for (key, value) in &plan.sysctl {
        let path = [c"sys/".to_bytes(), key.to_bytes()].concat();
        let path = CString::new(path).map_err(io::Error::from);
        path.and_then(|path| proc.write(&path, value.as_bytes()))
            .doing(|| format!("set sysctl {} to {value:?}", show(key)))?;
    }
    Ok(())
}
