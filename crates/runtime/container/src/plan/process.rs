//! `process`: what the container's program gets and is (runtime-spec, config "Process"). Also for exec.

use std::{collections::BTreeMap, ffi::CString, fmt::Write as _, path::PathBuf};

use corten_sys::{capability::Set, sched::Scheduling};
use oci_spec::runtime::{
    Capabilities, IOPriorityClass, LinuxSchedulerFlag, LinuxSchedulerPolicy, PosixRlimitType, Process,
};

use super::{Problems, bit_list};

/// Everything about a process.
#[derive(Debug, Default)]
pub(crate) struct ProcessPlan {
    pub(crate) args: Vec<CString>,
    pub(crate) env: Vec<CString>,
    /// HOME isn't in `env` (or empty): it comes from the container's /etc/passwd.
    pub(crate) needs_home: bool,
    /// The value of PATH, for looking up `args[0]`.
    pub(crate) path: Option<String>,
    pub(crate) cwd: PathBuf,
    pub(crate) terminal: bool,
    /// Rows and columns.
    pub(crate) console_size: Option<(u16, u16)>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    /// Ours are kept, in the place of those: see [`super::annotations::KEEP_GROUPS`].
    pub(crate) keep_groups: bool,
    pub(crate) umask: u32,
    /// None: all that we have.
    pub(crate) capabilities: Option<CapabilityPlan>,
    pub(crate) rlimits: Vec<RlimitPlan>,
    pub(crate) no_new_privileges: bool,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) apparmor: Option<String>,
    pub(crate) selinux: Option<String>,
    pub(crate) scheduler: Option<Scheduling>,
    /// Class and priority.
    pub(crate) io_priority: Option<(u32, u32)>,
    pub(crate) affinity: Affinity,
}

/// `process.execCPUAffinity`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Affinity {
    pub(crate) initial: Option<Vec<u64>>,
    pub(crate) last: Option<Vec<u64>>,
}

/// The five capability sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CapabilityPlan {
    pub(crate) bounding: Set,
    pub(crate) effective: Set,
    pub(crate) inheritable: Set,
    pub(crate) permitted: Set,
    pub(crate) ambient: Set,
}

/// One resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RlimitPlan {
    pub(crate) resource: u32,
    pub(crate) name: PosixRlimitType,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

impl ProcessPlan {
    pub(super) fn new(process: &Process, listen_fds: u32, problems: &mut Problems) -> Self {
        let args = process.args().as_deref().unwrap_or_default();
        if args.is_empty() {
            problems.add("process.args", "must not be empty");
        }
        if !process.cwd().is_absolute() {
            problems.add("process.cwd", format_args!("{} is not absolute", process.cwd().display()));
        }
        let mut plan = Self {
            args: args.iter().map(|arg| problems.c_string("process.args", arg)).collect(),
            cwd: process.cwd().clone(),
            terminal: process.terminal().unwrap_or(false),
            console_size: process.console_size().map(|s| (clamp(s.height()), clamp(s.width()))),
            uid: process.user().uid(),
            gid: process.user().gid(),
            groups: process.user().additional_gids().clone().unwrap_or_default(),
            umask: process.user().umask().unwrap_or(0o022),
            capabilities: process.capabilities().as_ref().map(|c| CapabilityPlan {
                bounding: set(c.bounding().as_ref()),
                effective: set(c.effective().as_ref()),
                inheritable: set(c.inheritable().as_ref()),
                permitted: set(c.permitted().as_ref()),
                ambient: set(c.ambient().as_ref()),
            }),
            rlimits: rlimits(process, problems),
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            oom_score_adj: process.oom_score_adj(),
            apparmor: process.apparmor_profile().clone().filter(|s| !s.is_empty()),
            selinux: process.selinux_label().clone().filter(|s| !s.is_empty()),
            scheduler: scheduler(process, problems),
            io_priority: io_priority(process, problems),
            affinity: affinity(process, problems),
            ..Self::default()
        };
        if let Some(score) = plan.oom_score_adj.filter(|score| !(-1000..=1000).contains(score)) {
            problems.add("process.oomScoreAdj", format_args!("{score} is not within -1000 and 1000"));
        }
        // To the kernel it means "as before", which is root.
        for (field, id) in [("uid", plan.uid), ("gid", plan.gid)] {
            if id == u32::MAX {
                problems.add(&format!("process.user.{field}"), format_args!("{id} is no id"));
            }
        }
        plan.environment(process.env().as_deref().unwrap_or_default(), listen_fds, problems);
        plan
    }

    /// The environment: of a name given twice the last value counts, as in runc.
    fn environment(&mut self, env: &[String], listen_fds: u32, problems: &mut Problems) {
        // Where each name is given last; there may be tens of thousands.
        let mut last = BTreeMap::new();
        for (i, entry) in env.iter().enumerate() {
            if let Some((key, _)) = entry.split_once('=') {
                last.insert(key, i);
            }
        }
        let mut has_home = false;
        for (i, entry) in env.iter().enumerate() {
            let at = format!("process.env[{i}]");
            let Some((key, value)) = entry.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                problems.add(&at, format_args!("{entry:?} is not of the form NAME=value"));
                continue;
            };
            if last.get(key) != Some(&i) {
                continue;
            }
            match key {
                "HOME" if value.is_empty() => continue,
                "HOME" => has_home = true,
                "PATH" => self.path = Some(value.to_owned()),
                "LISTEN_FDS" | "LISTEN_PID" if listen_fds > 0 => continue,
                _ => {}
            }
            self.env.push(problems.c_string(&at, entry));
        }
        if listen_fds > 0 {
            self.env.push(problems.c_string("LISTEN_FDS", format!("LISTEN_FDS={listen_fds}")));
            self.env.push(c"LISTEN_PID=1".to_owned());
        }
        self.needs_home = !has_home;
    }
}

fn clamp(n: u64) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}

fn set(capabilities: Option<&Capabilities>) -> Set {
    let mut set = Set::default();
    let mut name = String::with_capacity(32);
    for capability in capabilities.into_iter().flatten() {
        name.clear();
        write!(name, "CAP_{capability}").expect("writing to a String doesn't fail");
        set.insert_name(&name);
    }
    set
}

fn rlimits(process: &Process, problems: &mut Problems) -> Vec<RlimitPlan> {
    let mut plan: Vec<RlimitPlan> = Vec::new();
    for (i, limit) in process.rlimits().as_deref().unwrap_or_default().iter().enumerate() {
        let at = format!("process.rlimits[{i}]");
        let (resource, name) = (resource(limit.typ()), limit.typ());
        if plan.iter().any(|other| other.resource == resource) {
            problems.add(&at, format_args!("{name} is given twice"));
        }
        if limit.soft() > limit.hard() {
            problems.add(&at, format_args!("the soft limit of {name} is above the hard one"));
        }
        plan.push(RlimitPlan { resource, name, soft: limit.soft(), hard: limit.hard() });
    }
    plan
}

/// The kernel's number (asm-generic, which all our architectures have).
fn resource(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => 0,
        PosixRlimitType::RlimitFsize => 1,
        PosixRlimitType::RlimitData => 2,
        PosixRlimitType::RlimitStack => 3,
        PosixRlimitType::RlimitCore => 4,
        PosixRlimitType::RlimitRss => 5,
        PosixRlimitType::RlimitNproc => 6,
        PosixRlimitType::RlimitNofile => 7,
        PosixRlimitType::RlimitMemlock => 8,
        PosixRlimitType::RlimitAs => 9,
        PosixRlimitType::RlimitLocks => 10,
        PosixRlimitType::RlimitSigpending => 11,
        PosixRlimitType::RlimitMsgqueue => 12,
        PosixRlimitType::RlimitNice => 13,
        PosixRlimitType::RlimitRtprio => 14,
        PosixRlimitType::RlimitRttime => 15,
    }
}

fn scheduler(process: &Process, problems: &mut Problems) -> Option<Scheduling> {
    let scheduler = process.scheduler().as_ref()?;
    let policy = match scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let flags = scheduler.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                LinuxSchedulerFlag::SchedResetOnFork => 0x01,
                LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
                LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
                LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
                LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
                LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
                LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
            }
    });
    let priority = u32::try_from(scheduler.priority().unwrap_or_default()).unwrap_or_else(|_| {
        problems.add("process.scheduler.priority", "is negative");
        0
    });
    Some(Scheduling {
        policy,
        flags,
        nice: scheduler.nice().unwrap_or_default(),
        priority,
        runtime: scheduler.runtime().unwrap_or_default(),
        deadline: scheduler.deadline().unwrap_or_default(),
        period: scheduler.period().unwrap_or_default(),
        ..Scheduling::default()
    })
}

fn io_priority(process: &Process, problems: &mut Problems) -> Option<(u32, u32)> {
    let priority = process.io_priority().as_ref()?;
    let class = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u32::try_from(priority.priority()) {
        Ok(level @ 0..=7) => Some((class, level)),
        _ => {
            problems.add("process.ioPriority.priority", "must be 0 to 7");
            None
        }
    }
}

fn affinity(process: &Process, problems: &mut Problems) -> Affinity {
    let Some(affinity) = process.exec_cpu_affinity().as_ref() else { return Affinity::default() };
    let mut list = |at: &str, text: &Option<String>| {
        let text = text.as_deref().filter(|text| !text.is_empty())?;
        let bits = bit_list(text);
        if bits.is_none() {
            problems.add(at, format_args!("{text:?} is not a list of CPUs"));
        }
        bits
    };
    Affinity {
        initial: list("process.execCPUAffinity.initial", affinity.initial()),
        last: list("process.execCPUAffinity.final", affinity.cpu_affinity_final()),
    }
}
