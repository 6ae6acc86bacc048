//! Compiles the seccomp section of an OCI config.json (runtime-spec, "Seccomp") to classic BPF: a pure function.
//!
//! ```text
//! which architecture?  ── unknown ──▶ KILL
//!   │
//!   ├─ newer than any system call that the profile names?  ──▶ ERRNO(ENOSYS), so that programs fall back
//!   │
//!   └─ binary search over intervals of numbers that have the same answer
//!        ├─▶ the answer
//!        └─▶ rules with conditions on arguments, one after the other, then the default
//! ```
//!
//! What rules mean beside and against each other is what libseccomp makes of them, and for ENOSYS and repeated
//! arguments what runc makes of them, because profiles are written for those:
//!
//! - a rule with the default's action changes nothing;
//! - of the rules for a system call, one without conditions wins over all with; the first, if there are several;
//! - the conditions of a rule must all hold, but two on the same argument make it two rules;
//! - on i386, allowing `socket` and its like also allows them through `socketcall` (and `semop` ... through `ipc`). There
//!   conditions can't be tested; libseccomp then tests others, here it's the stricter of the answers.
//!
//! ```
//! use corten_seccomp::{Error, Options, compile};
//!
//! let profile = serde_json::from_str(
//!     r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
//!         {"names": ["read", "write", "exit_group", "no_such_call"], "action": "SCMP_ACT_ALLOW"}]}"#,
//! )?;
//! let program = compile(&profile, Options::default())?;
//! assert!(!program.filter.is_empty() && !program.notify);
//! assert!(program.warnings[0].contains("no_such_call"), "{:?}", program.warnings);
//!
//! let profile = serde_json::from_str(r#"{"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}"#)?;
//! assert!(matches!(compile(&profile, Options::default()), Err(Error::Errno { .. })));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod action;
mod arch;
mod condition;
mod error;
mod rules;
mod search;
mod table;

pub use corten_sys::seccomp::Instruction;
pub use error::Error;
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag};

/// A filter ready for seccomp(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The instructions.
    pub filter: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_*` as seccomp(2) takes them; with NEW_LISTENER if a rule notifies.
    pub flags: u64,
    /// Whether loading it returns a notification descriptor (a rule says NOTIFY).
    pub notify: bool,
    /// What was left out, for the log: system call names and architectures that we don't know.
    pub warnings: Vec<String>,
}

/// What isn't in the profile but decides too.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The machine's own architecture, always part of the filter.
    pub native: Arch,
    /// Whether a name that is no system call of any architecture is an error, and not a warning.
    pub fail_unknown: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { native: Arch::ScmpArchNative, fail_unknown: false }
    }
}

/// The kernel's BPF_MAXINSNS.
const MAX_LENGTH: usize = 4096;

/// Compiles the profile.
///
/// # Errors
/// What in the profile contradicts itself or can't be.
pub fn compile(profile: &LinuxSeccomp, options: Options) -> Result<Program, Error> {
    if profile.listener_path().is_none()
        && profile.listener_metadata().as_ref().is_some_and(|m| !m.is_empty())
    {
        return Err(Error::Metadata);
    }
    if options.fail_unknown
        && let Some((rule, name)) = rules::unknown(profile)
    {
        return Err(Error::Unknown { rule, name: name.to_owned() });
    }
    let mut warnings = Vec::new();
    let targets =
        arch::targets(profile.architectures().as_deref().unwrap_or_default(), options.native, &mut warnings)?;
    let rules = rules::Rules::read(profile, &mut warnings)?;
    let filter = arch::program(&targets, &rules);
    if filter.len() > MAX_LENGTH {
        return Err(Error::TooLong { length: filter.len() });
    }
    let notify = rules.notify;
    Ok(Program { filter, flags: flags(profile.flags().as_deref(), notify), notify, warnings })
}

/// SECCOMP_FILTER_FLAG_*. Without any word about flags SPEC_ALLOW, as in runc: the mitigation that is otherwise
/// switched on with a filter costs a lot and protects little.
fn flags(flags: Option<&[LinuxSeccompFilterFlag]>, notify: bool) -> u64 {
    const TSYNC: u64 = 1;
    const LOG: u64 = 1 << 1;
    const SPEC_ALLOW: u64 = 1 << 2;
    const NEW_LISTENER: u64 = 1 << 3;
    const TSYNC_ESRCH: u64 = 1 << 4;
    const WAIT_KILLABLE_RECV: u64 = 1 << 5;
    let bit = |flag: &LinuxSeccompFilterFlag| match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => TSYNC,
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => LOG,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => SPEC_ALLOW,
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => WAIT_KILLABLE_RECV,
    };
    let mut bits = flags.map_or(SPEC_ALLOW, |flags| flags.iter().fold(0, |bits, flag| bits | bit(flag)));
    if notify {
        bits |= NEW_LISTENER;
        if bits & TSYNC != 0 {
            // Else seccomp(2) couldn't tell a thread's id from a descriptor.
            bits |= TSYNC_ESRCH;
        }
    } else {
        // The kernel refuses it where nobody listens.
        bits &= !WAIT_KILLABLE_RECV;
    }
    bits
}

/// The name as it is in config.json.
fn name_of(action: LinuxSeccompAction) -> &'static str {
    match action {
        LinuxSeccompAction::ScmpActKill => "SCMP_ACT_KILL",
        LinuxSeccompAction::ScmpActKillThread => "SCMP_ACT_KILL_THREAD",
        LinuxSeccompAction::ScmpActKillProcess => "SCMP_ACT_KILL_PROCESS",
        LinuxSeccompAction::ScmpActTrap => "SCMP_ACT_TRAP",
        LinuxSeccompAction::ScmpActErrno => "SCMP_ACT_ERRNO",
        LinuxSeccompAction::ScmpActNotify => "SCMP_ACT_NOTIFY",
        LinuxSeccompAction::ScmpActTrace => "SCMP_ACT_TRACE",
        LinuxSeccompAction::ScmpActLog => "SCMP_ACT_LOG",
        LinuxSeccompAction::ScmpActAllow => "SCMP_ACT_ALLOW",
    }
}
