//! What is set on the kernel rather than on the process: sysctls, names, personality, memory policy; and what is
//! refused because nobody would do it.

use std::ffi::CString;

use corten_sys::process::Namespaces;
use oci_spec::runtime::{Linux, LinuxPersonalityDomain, MemoryPolicyFlagType, MemoryPolicyModeType, Spec};

use super::{NamespacePlan, Plan, Problems, bit_list};

/// Sysctls that are the container's own; any other would change the host.
pub(super) fn sysctl(linux: &Linux, ns: &NamespacePlan, problems: &mut Problems) -> Vec<(CString, String)> {
    let mut all = Vec::new();
    for (key, value) in linux.sysctl().iter().flatten() {
        let at = format!("linux.sysctl[{key:?}]");
        // Dots and slashes both separate; as in sysctl(8) a name may have the other inside a component.
        let path = match key.find(['.', '/']).and_then(|i| key.get(i..=i)) {
            Some(".") => key.chars().map(swap).collect(),
            _ => key.clone(),
        };
        if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            problems.add(&at, "is not a name of a sysctl");
        }
        match namespace_of(&path) {
            None => problems.add(&at, "is not namespaced: it would change the host"),
            Some(kind) if !ns.has(kind) => {
                problems.add(&at, "needs a namespace of its own, or it would change the host");
            }
            Some(_) => {}
        }
        all.push((problems.c_string(&at, path), value.clone()));
    }
    all.sort();
    all
}

fn swap(c: char) -> char {
    match c {
        '.' => '/',
        '/' => '.',
        other => other,
    }
}

fn namespace_of(path: &str) -> Option<Namespaces> {
    const IPC: [&str; 9] =
        ["msgmax", "msgmnb", "msgmni", "msg_next_id", "sem", "sem_next_id", "shmall", "shmmax", "shmmni"];
    if path.starts_with("net/") {
        return Some(Namespaces::NET);
    }
    if path.starts_with("fs/mqueue/") {
        return Some(Namespaces::IPC);
    }
    // Limits of a user namespace are its own.
    if path.starts_with("user/") {
        return Some(Namespaces::USER);
    }
    match path.strip_prefix("kernel/")? {
        "domainname" => Some(Namespaces::UTS),
        "shm_rmid_forced" | "shm_next_id" => Some(Namespaces::IPC),
        name if IPC.contains(&name) => Some(Namespaces::IPC),
        _ => None,
    }
}

/// `hostname` or `domainname`.
pub(super) fn uts_name(
    at: &str,
    name: Option<&str>,
    ns: &NamespacePlan,
    problems: &mut Problems,
) -> Option<String> {
    let name = name.filter(|name| !name.is_empty())?;
    if !ns.has(Namespaces::UTS) {
        problems.add(at, "needs a UTS namespace of its own, or it would be the host's");
    }
    if name.len() > 64 {
        problems.add(at, "is longer than 64 bytes");
    }
    Some(name.to_owned())
}

pub(super) fn personality(linux: &Linux, problems: &mut Problems) -> Option<u64> {
    let personality = linux.personality().as_ref()?;
    if personality.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        problems.add("linux.personality.flags", "there are none that runtime-spec supports");
    }
    // runtime-spec has no others: PER_LINUX and PER_LINUX32 of personality(2).
    Some(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    })
}

pub(super) fn memory_policy(linux: &Linux, problems: &mut Problems) -> Option<(u32, Vec<u64>)> {
    let policy = linux.memory_policy().as_ref()?;
    let mode = match policy.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flags = policy.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
                MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
                MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
            }
    });
    let nodes = policy.nodes().as_deref().unwrap_or_default();
    let bits = bit_list(nodes).unwrap_or_else(|| {
        problems.add("linux.memoryPolicy.nodes", format_args!("{nodes:?} is not a list of nodes"));
        Vec::new()
    });
    Some((mode | flags, bits))
}

/// What nobody here does is refused rather than ignored.
pub(super) fn refuse_unsupported(spec: &Spec, plan: &Plan, problems: &mut Problems) {
    if plan.process.apparmor.is_some() && plan.process.selinux.is_some() {
        problems.add("process", "apparmorProfile and selinuxLabel exclude each other");
    }
    let sysctl = plan.sysctl.iter().find(|(path, _)| path.as_bytes() == b"kernel/domainname");
    if let (Some(name), Some((_, value))) = (&plan.domainname, sysctl)
        && name != value
    {
        problems
            .add("domainname", format_args!("is {name:?}, but linux.sysctl has kernel.domainname {value:?}"));
    }
    if spec.vm().is_some() {
        problems.add("vm", "is for runtimes that start virtual machines");
    }
}
