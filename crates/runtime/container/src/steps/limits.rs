//! Resource limits, scheduling, priorities.

use std::io;

use corten_sys::{process, sched};
use nix::libc;

use crate::{
    Result,
    error::Doing,
    plan::{ProcessPlan, RlimitPlan},
    procfs::Proc,
};

/// Sets the limits of ourselves. A hard limit that we may not raise stays where it is, with a warning.
pub(crate) fn rlimits(limits: &[RlimitPlan], mut warn: impl FnMut(String)) -> Result<()> {
    for limit in limits {
        set(limit, &mut warn).doing(|| format!("set {} to {}:{}", limit.name, limit.soft, limit.hard))?;
    }
    Ok(())
}

fn set(limit: &RlimitPlan, warn: &mut impl FnMut(String)) -> io::Result<()> {
    match process::set_rlimit(0, limit.resource, limit.soft, limit.hard) {
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
            let (_, hard) = process::rlimit(0, limit.resource)?;
            let hard = hard.min(limit.hard);
            warn(format!(
                "may not raise {} to {}: it stays at {hard} (CAP_SYS_RESOURCE is missing)",
                limit.name, limit.hard
            ));
            process::set_rlimit(0, limit.resource, limit.soft.min(hard), hard)
        }
        other => other,
    }
}

/// How likely the OOM killer is to take us; see [`crate::spawn::parent::Child::oom_score`].
pub(crate) fn oom_score(score: Option<i32>, mut warn: impl FnMut(String)) -> Result<()> {
    let Some(score) = score else { return Ok(()) };
    match Proc::mounted().and_then(|proc| proc.write_self("oom_score_adj", &score.to_string())) {
        Err(e) if e.raw_os_error() == Some(libc::EACCES) => {
            warn(format!("may not lower oom_score_adj to {score}: it stays as it is"));
            Ok(())
        }
        other => other.doing(|| format!("set oom_score_adj to {score}")),
    }
}

/// Scheduling policy and I/O priority.
pub(crate) fn priorities(process: &ProcessPlan) -> Result<()> {
    if let Some(scheduling) = &process.scheduler {
        sched::set_scheduling(scheduling)
            .doing(|| format!("set the scheduling policy {}", scheduling.policy))?;
    }
    if let Some((class, level)) = process.io_priority {
        sched::set_io_priority(class, level)
            .doing(|| format!("set the I/O priority to class {class} level {level}"))?;
    }
    Ok(())
}

/// Runs on these CPUs only; None leaves it as it is.
pub(crate) fn affinity(cpus: Option<&[u64]>) -> Result<()> {
    cpus.map_or(Ok(()), |cpus| sched::set_affinity(cpus).doing(|| "set process.execCPUAffinity".to_owned()))
}

/// Runs on every CPU of our cpuset: what our caller is bound to is not for the container.
pub(crate) fn all_cpus() {
    sched::set_affinity(&[u64::MAX; 128]).ok(); // because where it can't be changed it's nobody's wish
}

/// The execution domain and the NUMA policy: before seccomp, which may forbid to set them.
pub(crate) fn domain(personality: Option<u64>, memory_policy: Option<&(u32, Vec<u64>)>) -> Result<()> {
    if let Some(persona) = personality {
        process::personality(persona).doing(|| "set the personality".to_owned())?;
    }
    if let Some((mode, nodes)) = memory_policy {
        sched::set_memory_policy(*mode, nodes).doing(|| "set the memory policy".to_owned())?;
    }
    Ok(())
}
