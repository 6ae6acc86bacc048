//! What a profile means, without compiling it: each rule looked at in turn for each call. A second opinion on the compiled
//! filter, written from runtime-spec's "Seccomp" and the list at the top of the crate's documentation; it shares nothing
//! with the compiler, not even the numbers of system calls.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator as Operator,
    LinuxSyscall,
};

/// Name, and the numbers on x86_64, i386, x32 and aarch64, as the kernel's headers have them; -1: not there.
pub(crate) const CALLS: [(&str, [i64; 4]); 38] = [
    ("read", [0, 3, 0, 63]),
    ("write", [1, 4, 1, 64]),
    ("open", [2, 5, 2, -1]),
    ("close", [3, 6, 3, 57]),
    ("semop", [65, -1, 65, 193]),
    ("semget", [64, 393, 64, 190]),
    ("semtimedop", [220, -1, 220, 192]),
    ("msgsnd", [69, 400, 69, 189]),
    ("shmat", [30, 397, 30, 196]),
    ("ipc", [-1, 117, -1, -1]),
    ("getpid", [39, 20, 39, 172]),
    ("socket", [41, 359, 41, 198]),
    ("bind", [49, 361, 49, 200]),
    ("connect", [42, 362, 42, 203]),
    ("accept", [43, -1, 43, 202]),
    ("accept4", [288, 364, 288, 242]),
    ("recvmsg", [47, 372, 519, 212]),
    ("sendmmsg", [307, 345, 538, 269]),
    ("socketcall", [-1, 102, -1, -1]),
    ("clone", [56, 120, 56, 220]),
    ("clone3", [435, 435, 435, 435]),
    ("execve", [59, 11, 520, 221]),
    ("exit_group", [231, 252, 231, 94]),
    ("personality", [135, 136, 135, 92]),
    ("mount", [165, 21, 165, 40]),
    ("mkdir", [83, 39, 83, -1]),
    ("chown32", [-1, 212, -1, -1]),
    ("mmap2", [-1, 192, -1, -1]),
    ("arch_prctl", [158, 384, 158, -1]),
    ("prctl", [157, 172, 157, 167]),
    ("ptrace", [101, 26, 521, 117]),
    ("ioctl", [16, 54, 514, 29]),
    ("keyctl", [250, 288, 250, 219]),
    ("bpf", [321, 357, 321, 280]),
    ("openat2", [437, 437, 437, 437]),
    ("faccessat2", [439, 439, 439, 439]),
    ("futex_waitv", [449, 449, 449, 449]),
    ("mseal", [462, 462, 462, 462]),
];

/// What i386 also reaches through another call: that, the code there, and the call. Of those in [`CALLS`].
const THROUGH: [(&str, u32, &str); 12] = [
    ("socketcall", 1, "socket"),
    ("socketcall", 2, "bind"),
    ("socketcall", 3, "connect"),
    ("socketcall", 5, "accept"),
    ("socketcall", 17, "recvmsg"),
    ("socketcall", 18, "accept4"),
    ("socketcall", 20, "sendmmsg"),
    ("ipc", 1, "semop"),
    ("ipc", 2, "semget"),
    ("ipc", 4, "semtimedop"),
    ("ipc", 11, "msgsnd"),
    ("ipc", 21, "shmat"),
];

const AUDIT: [(u32, usize, Arch); 3] = [
    (0xc000_003e, 0, Arch::ScmpArchX86_64),
    (0x4000_0003, 1, Arch::ScmpArchX86),
    (0xc000_00b7, 3, Arch::ScmpArchAarch64),
];
const X32: u32 = 0x4000_0000;
const KILL: u32 = 0;
const ENOSYS: u32 = 0x0005_0000 | 38;

/// What the profile says about a call on an x86_64 machine; it may only name what is in [`CALLS`], or nothing that exists.
pub(crate) fn answer(profile: &LinuxSeccomp, audit: u32, number: u32, args: [u64; 6]) -> u32 {
    let Some((_, mut column, mut arch)) = AUDIT.into_iter().find(|(known, ..)| *known == audit) else {
        return KILL;
    };
    let default = value(profile.default_action(), profile.default_errno_ret());
    let named = |arch| profile.architectures().iter().flatten().any(|named| *named == arch);
    if column == 0 && number == u32::MAX && !named(Arch::ScmpArchX32) {
        // A tracer's, for a call that is not to be done: like every number that doesn't exist.
        let allows = matches!(profile.default_action(), Action::ScmpActAllow | Action::ScmpActLog);
        return if allows || newest(profile, column).is_none() { default } else { ENOSYS };
    }
    let mut own = number;
    if column == 0 && number >= X32 {
        (column, arch, own) = (2, Arch::ScmpArchX32, number - X32);
    }
    let in_profile = profile.architectures().iter().flatten().any(|named| *named == arch);
    if !in_profile && arch != Arch::ScmpArchX86_64 {
        return KILL;
    }
    let wide = column == 0 || column == 3;
    if !matches!(profile.default_action(), Action::ScmpActAllow | Action::ScmpActLog)
        && newest(profile, column).is_some_and(|newest| i64::from(own) > newest)
    {
        return ENOSYS;
    }
    let Some((name, _)) = CALLS.iter().find(|(_, numbers)| numbers[column] == i64::from(own)) else {
        return default;
    };
    let rules = || {
        let all = profile.syscalls().iter().flatten();
        all.filter(|rule| rule.names().iter().any(|named| named == name))
            .filter(|rule| decides(rule, default))
    };
    if let Some(rule) = rules().find(|rule| unconditional(rule)) {
        return value(rule.action(), rule.errno_ret());
    }
    if let Some(rule) = rules().find(|rule| applies(rule, &args, wide)) {
        return value(rule.action(), rule.errno_ret());
    }
    if column == 1 {
        for (_, _, inner) in
            THROUGH.iter().filter(|(through, code, _)| through == name && *code == args[0] as u32)
        {
            if let Some(action) = through(profile, inner) {
                return action;
            }
        }
    }
    default
}

/// What is decided for a call that comes through another, which hides its arguments: if that depends on them, what a deny
/// list denies.
fn through(profile: &LinuxSeccomp, name: &str) -> Option<u32> {
    let default = value(profile.default_action(), profile.default_errno_ret());
    let lets_through = |action: Action| matches!(action, Action::ScmpActAllow | Action::ScmpActLog);
    let rules: Vec<&LinuxSyscall> = profile
        .syscalls()
        .iter()
        .flatten()
        .filter(|rule| rule.names().iter().any(|named| named == name) && decides(rule, default))
        .collect();
    let denies = |rule: &LinuxSyscall| lets_through(profile.default_action()) && !lets_through(rule.action());
    let found =
        rules.iter().find(|rule| unconditional(rule)).or_else(|| rules.iter().find(|rule| denies(rule)));
    found.map(|rule| value(rule.action(), rule.errno_ret()))
}

/// The highest number that the profile names.
fn newest(profile: &LinuxSeccomp, column: usize) -> Option<i64> {
    let named = |wanted: &str| {
        profile.syscalls().iter().flatten().any(|rule| rule.names().iter().any(|name| name == wanted))
    };
    let mut numbers: Vec<i64> =
        CALLS.iter().filter(|(name, _)| named(name)).map(|(_, n)| n[column]).collect();
    if column == 1 {
        // What lets something through `ipc` names that.
        for (through, _, inner) in THROUGH {
            if self::through(profile, inner).is_some() {
                numbers.extend(CALLS.iter().find(|(name, _)| *name == through).map(|(_, n)| n[1]));
            }
        }
    }
    numbers.into_iter().filter(|number| *number >= 0).max()
}

fn decides(rule: &LinuxSyscall, default: u32) -> bool {
    value(rule.action(), rule.errno_ret()) != default
}

fn unconditional(rule: &LinuxSyscall) -> bool {
    rule.args().as_ref().is_none_or(Vec::is_empty)
}

/// All conditions; or any of them, if two are about the same argument.
fn applies(rule: &LinuxSyscall, args: &[u64; 6], wide: bool) -> bool {
    let conditions = rule.args().as_deref().unwrap_or_default();
    let mut indices: Vec<usize> = conditions.iter().map(LinuxSeccompArg::index).collect();
    indices.sort_unstable();
    indices.dedup();
    let holds = |condition: &LinuxSeccompArg| holds(condition, args[condition.index()], wide);
    if indices.len() < conditions.len() { conditions.iter().any(holds) } else { conditions.iter().all(holds) }
}

fn holds(condition: &LinuxSeccompArg, argument: u64, wide: bool) -> bool {
    let cut = |value: u64| if wide { value } else { value & 0xffff_ffff };
    let (argument, value) = (cut(argument), cut(condition.value()));
    match condition.op() {
        Operator::ScmpCmpNe => argument != value,
        Operator::ScmpCmpLt => argument < value,
        Operator::ScmpCmpLe => argument <= value,
        Operator::ScmpCmpEq => argument == value,
        Operator::ScmpCmpGe => argument >= value,
        Operator::ScmpCmpGt => argument > value,
        Operator::ScmpCmpMaskedEq => argument & value == cut(condition.value_two().unwrap_or(0)) & value,
    }
}

/// SECCOMP_RET_* with its data.
fn value(action: Action, errno: Option<u32>) -> u32 {
    match action {
        Action::ScmpActKill | Action::ScmpActKillThread => KILL,
        Action::ScmpActKillProcess => 0x8000_0000,
        Action::ScmpActTrap => 0x0003_0000,
        Action::ScmpActErrno => 0x0005_0000 | errno.unwrap_or(1),
        Action::ScmpActNotify => 0x7fc0_0000,
        Action::ScmpActTrace => 0x7ff0_0000 | errno.unwrap_or(1),
        Action::ScmpActLog => 0x7ffc_0000,
        Action::ScmpActAllow => 0x7fff_0000,
    }
}
