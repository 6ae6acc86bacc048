//! The seccomp filter of a container: the runtime's default profile, one of the node's files, or none.
//!
//! The default profile answers EPERM to whatever isn't listed: what a process can't need, or what has broken kernels
//! open before (io_uring, userfaultfd, keyrings, AF_VSOCK and AF_ALG sockets). What a capability is good for comes
//! with the capability.

use std::path::Path;

use corten_cri_api::v1::{LinuxContainerSecurityContext, security_profile::ProfileType};
use serde_json::{Value, json};

use crate::{Error, Result};

/// What every container may call.
#[rustfmt::skip]
const BASE: &[&str] = &[
    "_llseek", "_newselect", "accept", "accept4", "access", "adjtimex", "alarm", "bind", "brk",
    "cachestat", "capget", "capset", "chdir", "chmod", "chown", "chown32", "clock_adjtime",
    "clock_adjtime64", "clock_getres", "clock_getres_time64", "clock_gettime", "clock_gettime64",
    "clock_nanosleep", "clock_nanosleep_time64", "close", "close_range", "connect", "copy_file_range",
    "creat", "dup", "dup2", "dup3", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old",
    "epoll_pwait", "epoll_pwait2", "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2", "execve",
    "execveat", "exit", "exit_group", "faccessat", "faccessat2", "fadvise64", "fadvise64_64", "fallocate",
    "fanotify_mark", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchown32", "fchownat",
    "fcntl", "fcntl64", "fdatasync", "fgetxattr", "flistxattr", "flock", "fork", "fremovexattr",
    "fsetxattr", "fstat", "fstat64", "fstatat64", "fstatfs", "fstatfs64", "fsync", "ftruncate",
    "ftruncate64", "futex", "futex_requeue", "futex_time64", "futex_wait", "futex_waitv", "futex_wake",
    "futimesat", "get_robust_list", "get_thread_area", "getcpu", "getcwd", "getdents", "getdents64",
    "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups", "getgroups32",
    "getitimer", "getpeername", "getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getrandom",
    "getresgid", "getresgid32", "getresuid", "getresuid32", "getrlimit", "getrusage", "getsid",
    "getsockname", "getsockopt", "gettid", "gettimeofday", "getuid", "getuid32", "getxattr", "getxattrat",
    "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch", "io_cancel", "io_destroy",
    "io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_setup", "io_submit", "ioctl",
    "ioprio_get", "ioprio_set", "ipc", "kill", "landlock_add_rule", "landlock_create_ruleset",
    "landlock_restrict_self", "lchown", "lchown32", "lgetxattr", "link", "linkat", "listen", "listmount",
    "listxattr", "listxattrat", "llistxattr", "lremovexattr", "lseek", "lsetxattr", "lsm_get_self_attr",
    "lsm_list_modules", "lsm_set_self_attr", "lstat", "lstat64", "madvise", "map_shadow_stack",
    "membarrier", "memfd_create", "memfd_secret", "mincore", "mkdir", "mkdirat", "mknod", "mknodat",
    "mlock", "mlock2", "mlockall", "mmap", "mmap2", "mprotect", "mq_getsetattr", "mq_notify", "mq_open",
    "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend", "mq_timedsend_time64", "mq_unlink",
    "mremap", "mseal", "msgctl", "msgget", "msgrcv", "msgsnd", "msync", "munlock", "munlockall", "munmap",
    "name_to_handle_at", "nanosleep", "newfstatat", "open", "openat", "openat2", "pause", "pidfd_open",
    "pidfd_send_signal", "pipe", "pipe2", "pkey_alloc", "pkey_free", "pkey_mprotect", "poll", "ppoll",
    "ppoll_time64", "prctl", "pread64", "preadv", "preadv2", "prlimit64", "process_mrelease",
    "process_vm_readv", "process_vm_writev", "pselect6", "pselect6_time64", "ptrace", "pwrite64",
    "pwritev", "pwritev2", "read", "readahead", "readlink", "readlinkat", "readv", "recv", "recvfrom",
    "recvmmsg", "recvmmsg_time64", "recvmsg", "remap_file_pages", "removexattr", "removexattrat", "rename",
    "renameat", "renameat2", "restart_syscall", "rmdir", "rseq", "rt_sigaction", "rt_sigpending",
    "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait",
    "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sched_get_priority_max", "sched_get_priority_min",
    "sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler", "sched_rr_get_interval",
    "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr", "sched_setparam",
    "sched_setscheduler", "sched_yield", "seccomp", "select", "semctl", "semget", "semop", "semtimedop",
    "semtimedop_time64", "send", "sendfile", "sendfile64", "sendmmsg", "sendmsg", "sendto",
    "set_robust_list", "set_thread_area", "set_tid_address", "setfsgid", "setfsgid32", "setfsuid",
    "setfsuid32", "setgid", "setgid32", "setgroups", "setgroups32", "setitimer", "setpgid", "setpriority",
    "setregid", "setregid32", "setresgid", "setresgid32", "setresuid", "setresuid32", "setreuid",
    "setreuid32", "setrlimit", "setsid", "setsockopt", "setuid", "setuid32", "setxattr", "setxattrat",
    "shmat", "shmctl", "shmdt", "shmget", "shutdown", "sigaltstack", "signalfd", "signalfd4",
    "sigprocmask", "sigreturn", "socketcall", "socketpair", "splice", "stat", "stat64", "statfs",
    "statfs64", "statmount", "statx", "symlink", "symlinkat", "sync", "sync_file_range", "syncfs",
    "sysinfo", "tee", "tgkill", "time", "timer_create", "timer_delete", "timer_getoverrun",
    "timer_gettime", "timer_gettime64", "timer_settime", "timer_settime64", "timerfd_create",
    "timerfd_gettime", "timerfd_gettime64", "timerfd_settime", "timerfd_settime64", "times", "tkill",
    "truncate", "truncate64", "ugetrlimit", "umask", "uname", "unlink", "unlinkat", "uretprobe", "utime",
    "utimensat", "utimensat_time64", "utimes", "vfork", "vmsplice", "wait4", "waitid", "waitpid", "write",
    "writev",
];

/// What a container may call as well on this architecture.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: &[&str] = &["arch_prctl", "modify_ldt"];
/// What a container may call as well on this architecture.
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: &[&str] =
    &["arm_fadvise64_64", "arm_sync_file_range", "breakpoint", "cacheflush", "set_tls", "sync_file_range2"];
/// What a container may call as well on this architecture.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURE: &[&str] = &[];

/// The architectures whose calls the filter knows: the kernel's own and those it runs beside.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: &[&str] = &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
/// The architectures whose calls the filter knows: the kernel's own and those it runs beside.
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: &[&str] = &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"];
/// The architectures whose calls the filter knows: the kernel's own.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURES: &[&str] = &[];

/// What a container may call because it holds a capability.
const BY_CAPABILITY: &[(&str, &[&str])] = &[
    ("CAP_BPF", &["bpf"]),
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("CAP_PERFMON", &["perf_event_open"]),
    (
        "CAP_SYS_ADMIN",
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    ("CAP_SYS_BOOT", &["reboot"]),
    ("CAP_SYS_CHROOT", &["chroot"]),
    ("CAP_SYS_MODULE", &["delete_module", "finit_module", "init_module"]),
    ("CAP_SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("CAP_SYS_PACCT", &["acct"]),
    (
        "CAP_SYS_PTRACE",
        &["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace"],
    ),
    ("CAP_SYS_RAWIO", &["ioperm", "iopl"]),
    ("CAP_SYS_TIME", &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"]),
    ("CAP_SYSLOG", &["syslog"]),
];

/// The clone flags that make namespaces.
const NEW_NAMESPACES: u64 = 0x7E02_0000;
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;
const ENOSYS: u32 = 38;
/// The personalities that programs legitimately ask for: Linux, with a 2.6 version number, 32 bits, and "which is it?".
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The filter that the security context asks for, or `None` for unconfined. `bounding` is what the container holds.
pub(super) fn filter(security: &LinuxContainerSecurityContext, bounding: &[String]) -> Result<Option<Value>> {
    if security.privileged {
        return Ok(None);
    }
    let Some(profile) = &security.seccomp else {
        #[expect(deprecated, reason = "clients older than the typed profile")]
        return by_deprecated_name(&security.seccomp_profile_path, bounding);
    };
    match profile.profile_type() {
        ProfileType::RuntimeDefault => Ok(Some(default_profile(bounding))),
        ProfileType::Unconfined => Ok(None),
        ProfileType::Localhost => from_file(Path::new(&profile.localhost_ref)).map(Some),
    }
}

/// Clients older than the typed profile name it in a string; nothing at all means unconfined.
fn by_deprecated_name(name: &str, bounding: &[String]) -> Result<Option<Value>> {
    match name {
        "" | "unconfined" => Ok(None),
        "runtime/default" | "docker/default" => Ok(Some(default_profile(bounding))),
        other => match other.strip_prefix("localhost/") {
            Some(path) => from_file(Path::new(path)).map(Some),
            None => Err(Error::invalid(format!("unknown seccomp profile {other:?}"))),
        },
    }
}

fn from_file(path: &Path) -> Result<Value> {
    if !path.is_absolute() {
        return Err(Error::invalid(format!("seccomp profile {} is no absolute path", path.display())));
    }
    let text = std::fs::read(path).map_err(Error::io("read the seccomp profile", path))?;
    let profile: oci_spec::runtime::LinuxSeccomp = serde_json::from_slice(&text)
        .map_err(|error| Error::invalid(format!("seccomp profile {}: {error}", path.display())))?;
    Ok(json!(profile))
}

/// The profile of `RuntimeDefault` for a container that holds `bounding`.
pub(super) fn default_profile(bounding: &[String]) -> Value {
    let allow = |names: &[&str]| json!({"names": names, "action": "SCMP_ACT_ALLOW"});
    let allow_if = |name: &str, op: &str, value: u64| json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": value, "op": op}]});
    let mut syscalls = vec![allow(BASE)];
    if !ARCHITECTURE.is_empty() {
        syscalls.push(allow(ARCHITECTURE));
    }
    // Any socket family but these two. One condition a rule: several on one argument would be read as "or".
    syscalls.push(allow_if("socket", "SCMP_CMP_LT", AF_ALG));
    syscalls.push(allow_if("socket", "SCMP_CMP_EQ", AF_ALG + 1));
    syscalls.push(allow_if("socket", "SCMP_CMP_GT", AF_VSOCK));
    for personality in PERSONALITIES {
        syscalls.push(allow_if("personality", "SCMP_CMP_EQ", personality));
    }
    for (capability, names) in BY_CAPABILITY {
        if bounding.iter().any(|held| held == capability) {
            syscalls.push(allow(names));
        }
    }
    if !bounding.iter().any(|held| held == "CAP_SYS_ADMIN") {
        syscalls.push(json!({
            "names": ["clone"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
        }));
        // Its flags lie in memory where no filter can look: libcs fall back to clone when it doesn't exist.
        syscalls.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    }
    json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ARCHITECTURES, "syscalls": syscalls})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(profile: &Value) -> Vec<&str> {
        let rules = profile["syscalls"].as_array().expect("rules");
        rules
            .iter()
            .flat_map(|rule| rule["names"].as_array().expect("names"))
            .filter_map(Value::as_str)
            .collect()
    }

    #[test]
    fn what_broke_kernels_open_is_not_allowed() {
        let profile = default_profile(&[]);
        for name in
            ["io_uring_setup", "userfaultfd", "keyctl", "add_key", "mount", "unshare", "bpf", "kexec_load"]
        {
            assert!(!names(&profile).contains(&name), "{name}");
        }
        serde_json::from_value::<oci_spec::runtime::LinuxSeccomp>(profile).expect("a valid profile");
    }

    #[test]
    fn capabilities_bring_their_calls() {
        let profile = default_profile(&["CAP_SYS_ADMIN".to_owned()]);
        assert!(names(&profile).contains(&"mount"));
        let clone = |rule: &&Value| rule["names"] == json!(["clone3"]);
        assert!(!profile["syscalls"].as_array().expect("rules").iter().any(|rule| clone(&rule)));
    }

    #[test]
    fn a_missing_profile_is_named() {
        let error = from_file(Path::new("/nonexistent/profile.json")).expect_err("missing").chain();
        assert!(error.contains("/nonexistent/profile.json"), "{error}");
    }
}
