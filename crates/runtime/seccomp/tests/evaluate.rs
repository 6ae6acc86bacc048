//! What compiled filters answer, worked out by hand.

mod machine;

use corten_seccomp::{Error, Options, Program, compile};
use machine::{X32, X86, X86_64, run};
use oci_spec::runtime::{Arch, LinuxSeccomp};
use serde_json::{Value, json};

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0;
const ERRNO: u32 = 0x0005_0000;

fn profile(json: Value) -> LinuxSeccomp {
    serde_json::from_value(json).expect("a profile")
}

fn try_compile(json: Value) -> Result<Program, Error> {
    compile(&profile(json), Options { native: Arch::ScmpArchX86_64, ..Options::default() })
}

fn compiled(json: Value) -> Program {
    try_compile(json).expect("compiles")
}

fn answer(program: &Program, arch: u32, number: u32, args: &[u64]) -> u32 {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    run(&program.filter, arch, number, all).0
}

#[test]
fn an_allow_list() {
    let program = compiled(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            {"names": ["read", "write", "execve"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["getpid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
            {"names": ["mount"], "action": "SCMP_ACT_KILL_PROCESS"}
        ]
    }));
    for (arch, number, expected) in [
        (X86_64, 0, ALLOW),       // read
        (X86_64, 1, ALLOW),       // write
        (X86_64, 2, ERRNO | 1),   // open: the default
        (X86_64, 59, ALLOW),      // execve
        (X86_64, 39, ERRNO | 13), // getpid
        (X86_64, 165, 0x8000_0000),
        (X86_64, 166, ERRNO | 38), // newer than all that are named
        (X86_64, 1 << 20, ERRNO | 38),
        (X86, 3, ALLOW),  // read
        (X86, 11, ALLOW), // execve
        (X86, 0, ERRNO | 1),
        (X86, 21, 0x8000_0000), // mount
        (X86, 22, ERRNO | 38),
        (X86_64, X32, ALLOW),       // read
        (X86_64, X32 + 520, ALLOW), // execve
        (X86_64, X32 + 59, ERRNO | 1),
        (0xc000_00b7, 63, KILL), // aarch64 isn't in the profile
    ] {
        assert_eq!(answer(&program, arch, number, &[]), expected, "{arch:#x} {number}");
    }
    assert_eq!(program.flags, 1 << 2, "SPEC_ALLOW unless flags are given");
}

#[test]
fn only_the_native_architecture_if_none_is_named() {
    let program = compiled(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": []}));
    assert_eq!(answer(&program, X86_64, 0, &[]), ALLOW);
    assert_eq!(answer(&program, X86, 3, &[]), KILL);
    assert_eq!(answer(&program, X86_64, X32, &[]), KILL);
    // What a tracer makes of a call that it doesn't want is none of x32's.
    assert_eq!(answer(&program, X86_64, u32::MAX, &[]), ALLOW);
    assert_eq!(program.flags, 0);
    // And in the usual allow list it doesn't exist, whether x32 is named or not.
    for architectures in [json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]), json!([])] {
        let program = compiled(json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": architectures,
            "syscalls": [{"names": ["read", "faccessat2"], "action": "SCMP_ACT_ALLOW"}]
        }));
        assert_eq!(answer(&program, X86_64, u32::MAX, &[]), 0x0005_0000 | 38, "{architectures}");
    }
}

#[test]
fn a_deny_list_has_no_enosys() {
    let program = compiled(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_TRACE", "errnoRet": 7}]
    }));
    assert_eq!(answer(&program, X86_64, 83, &[]), 0x7ff0_0007);
    assert_eq!(answer(&program, X86_64, 5000, &[]), ALLOW);
}

#[test]
fn operators_on_64_bits() {
    const V: u64 = 0x1_0000_0005;
    let interesting = [0, 4, 5, 6, V - 1, V, V + 1, 0x1_0000_0000, 0x2_0000_0000, 0x2_0000_0005, u64::MAX];
    type Holds = fn(u64) -> bool;
    let operators: [(&str, Holds); 6] = [
        ("SCMP_CMP_NE", |a| a != V),
        ("SCMP_CMP_LT", |a| a < V),
        ("SCMP_CMP_LE", |a| a <= V),
        ("SCMP_CMP_EQ", |a| a == V),
        ("SCMP_CMP_GE", |a| a >= V),
        ("SCMP_CMP_GT", |a| a > V),
    ];
    for (op, holds) in operators {
        let program = compiled(json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 2, "value": V, "op": op}]}]
        }));
        for value in interesting {
            let expected = if holds(value) { ALLOW } else { ERRNO | 1 };
            assert_eq!(answer(&program, X86_64, 0, &[7, 7, value]), expected, "{op} {value:#x}");
        }
    }
}

#[test]
fn masked_equality() {
    let program = compiled(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["clone"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 0x1_0000_00f0_u64, "valueTwo": 0x1_0000_0010_u64, "op": "SCMP_CMP_MASKED_EQ"}]}]
    }));
    for (value, expected) in
        [(0x1_0000_0010, true), (0x3_0000_001f, true), (0x10, false), (0x1_0000_0030, false)]
    {
        assert_eq!(answer(&program, X86_64, 56, &[value]) == ALLOW, expected, "{value:#x}");
    }
}

#[test]
fn conditions_of_a_rule_are_joined_and_rules_are_alternatives() {
    let program = compiled(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 2, "op": "SCMP_CMP_LE"}]},
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 10, "op": "SCMP_CMP_EQ"}]},
            // Twice the same argument: either.
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]}
        ]
    }));
    for (number, args, allowed) in [
        (41, &[1, 2][..], true),
        (41, &[1, 3], false),
        (41, &[10, 3], true),
        (41, &[2, 2], false),
        (135, &[0], true),
        (135, &[8], true),
        (135, &[1], false),
    ] {
        assert_eq!(answer(&program, X86_64, number, args) == ALLOW, allowed, "{number} {args:?}");
    }
}

#[test]
fn without_conditions_wins() {
    let rule = |args: Value| json!({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": args});
    let with = rule(json!([{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]));
    for rules in [[with.clone(), rule(json!([]))], [rule(json!([])), with]] {
        let program = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}));
        assert_eq!(answer(&program, X86_64, 0, &[2]), ALLOW);
    }
}

#[test]
fn i386_sockets_through_socketcall() {
    let program = compiled(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [{"names": ["bind", "semop"], "action": "SCMP_ACT_ALLOW"}]
    }));
    assert_eq!(answer(&program, X86, 361, &[]), ALLOW); // bind itself
    assert_eq!(answer(&program, X86, 102, &[2]), ALLOW); // socketcall(SYS_BIND)
    assert_eq!(answer(&program, X86, 102, &[1]), ERRNO | 1); // socketcall(SYS_SOCKET)
    assert_eq!(answer(&program, X86, 117, &[1]), ALLOW); // ipc(SEMOP)
    assert_eq!(answer(&program, X86, 117, &[2]), ERRNO | 1);
}

#[test]
fn a_deny_list_cannot_be_got_round_through_socketcall() {
    let af_alg = json!([{"index": 0, "value": 38, "op": "SCMP_CMP_EQ"}]);
    let rule = |action: &str| json!([{"names": ["socket"], "action": action, "args": af_alg}]);
    let profile = |default: &str, rule: Value| {
        compiled(json!({"defaultAction": default, "architectures": ["SCMP_ARCH_X86"], "syscalls": rule}))
    };
    // There the arguments are behind a pointer: it's the stricter answer.
    let denied = profile("SCMP_ACT_ALLOW", rule("SCMP_ACT_ERRNO"));
    assert_eq!(answer(&denied, X86, 359, &[38]), ERRNO | 1);
    assert_eq!(answer(&denied, X86, 359, &[2]), ALLOW);
    assert_eq!(answer(&denied, X86, 102, &[1]), ERRNO | 1);
    assert_eq!(answer(&denied, X86, 102, &[2]), ALLOW); // bind
    let allowed = profile("SCMP_ACT_ERRNO", rule("SCMP_ACT_ALLOW"));
    assert_eq!(answer(&allowed, X86, 359, &[38]), ALLOW);
    assert_eq!(answer(&allowed, X86, 102, &[1]), ERRNO | 1);
}

#[test]
fn notifications() {
    let program = compiled(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_LOG"],
        "listenerPath": "/s",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]
    }));
    assert!(program.notify);
    assert_eq!(program.flags, 0b11_1011);
    assert_eq!(answer(&program, X86_64, 83, &[]), 0x7fc0_0000);
    let quiet = compiled(
        json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}),
    );
    assert_eq!((quiet.flags, quiet.notify), (0, false));
}

#[test]
fn what_is_unknown_is_told_and_left_out() {
    let program = compiled(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_S390X"],
        "syscalls": [{"names": ["read", "no_such_call"], "action": "SCMP_ACT_ALLOW"}]
    }));
    assert_eq!(answer(&program, X86_64, 0, &[]), ALLOW);
    assert_eq!(program.warnings.len(), 2, "{:?}", program.warnings);
}

#[test]
fn nonsense_is_refused() {
    let rule = |rule: Value| json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]});
    let with_arg = json!({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]});
    for (json, expected) in [
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}),
            "linux.seccomp.defaultErrnoRet: errnoRet is not allowed with action SCMP_ACT_ALLOW",
        ),
        (
            rule(json!({"names": ["read"], "action": "SCMP_ACT_KILL", "errnoRet": 1})),
            "linux.seccomp.syscalls[0]: errnoRet is not allowed with action SCMP_ACT_KILL",
        ),
        (
            rule(json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096})),
            "linux.seccomp.syscalls[0]: errnoRet 4096 is out of range (0 to 4095)",
        ),
        (rule(with_arg), "linux.seccomp.syscalls[0].args[0].index: 6 is out of range (0 to 5)"),
        (
            json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
            "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY is not allowed here, the container could never be started",
        ),
        (
            rule(json!({"names": ["write"], "action": "SCMP_ACT_NOTIFY"})),
            "linux.seccomp.syscalls[0]: SCMP_ACT_NOTIFY is not allowed here, the container could never be started",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}),
            "linux.seccomp.listenerMetadata is set but listenerPath is not",
        ),
    ] {
        assert_eq!(try_compile(json).expect_err(expected).to_string(), expected);
    }
}

/// Every jump stays in the program and every path returns: else the kernel refuses the filter.
#[test]
fn a_program_with_long_jumps_is_sound() {
    let args =
        json!([{"index": 0, "value": 5, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 1, "op": "SCMP_CMP_GT"}]);
    let names: Vec<_> = "accept bind connect dup fork getpid kill lseek mmap open pipe read select time uname vfork wait4 write \
        access alarm brk chdir chmod chown clone close creat dup2 execve exit fchdir fchmod fcntl flock fsync getcwd getegid"
        .split_whitespace()
        .collect();
    let program = compiled(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW", "args": args}]
    }));
    assert!(program.filter.len() > 600, "{}", program.filter.len());
    for (at, i) in program.filter.iter().enumerate() {
        let furthest = match i.code & 7 {
            5 if i.code == 5 => i.k as usize,
            5 => usize::from(i.jt.max(i.jf)),
            _ => 0,
        };
        assert!(i.code == 6 || at + 1 + furthest < program.filter.len(), "instruction {at} {i:?}");
    }
    for number in 0..450 {
        let expected = if answer(&program, X86_64, number, &[5, 2]) == ALLOW { ALLOW } else { continue };
        assert_eq!(answer(&program, X86_64, number, &[5, 2]), expected);
        assert_ne!(answer(&program, X86_64, number, &[5, 1]), ALLOW, "{number}");
    }
    assert_eq!(answer(&program, X86_64, 61, &[5, 2]), ALLOW); // wait4
    assert_eq!(answer(&program, 0xc000_00b7, 260, &[5, 2]), ALLOW); // wait4
}
