//! The filters must answer as libseccomp's do, on all system calls and on arguments around every limit.
//!
//! Needs gcc and libseccomp's header; without them the test says so and is skipped. `CORTEN_SECCOMP_PROFILE` may
//! name a further profile to compare: a file with a `linux.seccomp` section, or an object that has one as `seccomp`.

mod machine;
#[allow(dead_code, reason = "only its list of system calls is used here")]
mod meaning;
mod profiles;
mod splitmix;

use std::{
    collections::BTreeSet,
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use corten_seccomp::{Instruction, Options, compile};
use machine::{X32, X86, X86_64, run};
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSyscall};
use serde_json::{Value, json};

/// Much like the default profile of Docker and Kubernetes: most is allowed, with the conditions that those have.
fn default_like() -> Value {
    let denied: BTreeSet<&str> = "acct add_key bpf chroot clock_adjtime clock_settime clone clone3 create_module delete_module \
        fanotify_init finit_module fsconfig fsmount fsopen fspick get_kernel_syms get_mempolicy init_module ioperm iopl \
        kcmp kexec_file_load kexec_load keyctl lookup_dcookie mbind mount mount_setattr move_mount move_pages nfsservctl \
        open_by_handle_at open_tree perf_event_open personality pivot_root process_madvise ptrace query_module quotactl \
        quotactl_fd reboot request_key set_mempolicy setdomainname sethostname setns settimeofday socket swapoff swapon \
        syslog umount umount2 unshare uselib userfaultfd ustat vhangup vm86 vm86old"
        .split_whitespace()
        .collect();
    let names: Vec<_> = names().into_iter().filter(|name| !denied.contains(name.as_str())).collect();
    let arg = |index: u32, op: &str, value: u64| json!({"index": index, "op": format!("SCMP_CMP_{op}"), "value": value});
    let allow = |name: &str, arg: Value| json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [arg]});
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            {"names": names, "action": "SCMP_ACT_ALLOW"},
            allow("socket", arg(0, "LT", 38)),
            allow("socket", arg(0, "EQ", 39)),
            allow("socket", arg(0, "GT", 40)),
            allow("personality", arg(0, "EQ", 0)),
            allow("personality", arg(0, "EQ", 8)),
            allow("personality", arg(0, "EQ", 0x2_0000)),
            allow("personality", arg(0, "EQ", 0xffff_ffff)),
            allow("clone", arg(0, "MASKED_EQ", 0x7e02_0000)),
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
        ]
    })
}

/// All operators and actions, several arguments, a deny list.
fn odd() -> Value {
    let rule =
        |names: &[&str], action: &str, args: Value| json!({"names": names, "action": action, "args": args});
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            rule(&["read"], "SCMP_ACT_KILL_PROCESS", json!([
                {"index": 0, "op": "SCMP_CMP_EQ", "value": 0x1_0000_0001_u64},
                {"index": 2, "op": "SCMP_CMP_GE", "value": 0xffff_ffff_u64}])),
            rule(&["write"], "SCMP_ACT_TRAP", json!([{"index": 1, "op": "SCMP_CMP_NE", "value": 0x5_0000_0000_u64}])),
            rule(&["open"], "SCMP_ACT_LOG", json!([
                {"index": 1, "op": "SCMP_CMP_MASKED_EQ", "value": 0x3_0000_0003_u64, "valueTwo": 0x1_0000_0001_u64},
                {"index": 5, "op": "SCMP_CMP_LE", "value": 7}])),
            rule(&["close", "stat", "lseek"], "SCMP_ACT_ERRNO", json!([])),
            rule(&["mkdir"], "SCMP_ACT_TRACE", json!([{"index": 3, "op": "SCMP_CMP_GT", "value": 0x8000_0000_u64}])),
            rule(&["poll"], "SCMP_ACT_KILL", json!([{"index": 4, "op": "SCMP_CMP_LT", "value": 0x8000_0000_0000_0000_u64}]))
        ]
    })
}

/// The names in the crate's own table, which is private to it.
fn names() -> Vec<String> {
    let table = include_str!("../src/table.rs");
    table
        .lines()
        .filter_map(|line| line.trim().strip_prefix("(\"")?.split('"').next().map(str::to_owned))
        .collect()
}

#[test]
fn agrees_with_libseccomp() {
    let dir = tempfile::tempdir().expect("temp dir");
    let Some(helper) = build_helper(dir.path()) else {
        skip("libseccomp");
        return;
    };
    let mut profiles = vec![("like the default", default_like()), ("odd", odd())];
    let outside = env::var_os("CORTEN_SECCOMP_PROFILE");
    if let Some(path) = &outside {
        let json: Value = serde_json::from_slice(&fs::read(path).expect("profile")).expect("JSON");
        profiles.push(("outside", json.get("seccomp").unwrap_or(&json).clone()));
    }
    for (name, json) in profiles {
        compare(name, &serde_json::from_value(json).expect("a profile"), &helper);
    }
}

/// Random profiles, with one action and one rule for a call: where several overlap, libseccomp joins them in a tree, from
/// which other answers come than from each alone. What ours makes of those is in `random.rs`.
#[test]
fn random_profiles_agree_with_libseccomp() {
    let dir = tempfile::tempdir().expect("temp dir");
    let Some(helper) = build_helper(dir.path()) else {
        skip("random libseccomp");
        return;
    };
    let rounds = env::var("CORTEN_SECCOMP_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    let (mut compared, mut skipped) = (0, 0);
    for seed in 0..rounds {
        let bytes = splitmix::bytes(1_000_000 + seed);
        let profile = untangled(&profiles::profile(&mut profiles::Choices(&bytes), true));
        let reference = try_reference(&profile, &helper).filter(|(theirs, _)| loads_numbers(theirs));
        let Some((theirs, unknown)) = reference else {
            skipped += 1;
            continue;
        };
        let ours = compile(&profile, Options { native: Arch::ScmpArchX86_64, ..Options::default() })
            .expect("compiles")
            .filter;
        let known = without_unknown(&profile, &unknown);
        let arguments = profiles::arguments(&profile);
        for (arch, number) in profiles::calls() {
            let base = if arch == X86_64 && number >= X32 { X32 } else { 0 };
            // Through these, libseccomp applies conditions to the wrong arguments: see the crate's documentation.
            let through_another = arch == X86 && [102, 117].contains(&number);
            if through_another || !known(arch, base, number - base) {
                continue;
            }
            for args in arguments.iter().step_by(3) {
                let (expected, _) = run(&theirs, arch, number, *args);
                let (found, _) = run(&ours, arch, number, *args);
                let json = || serde_json::to_string(&profile).unwrap_or_default();
                assert_eq!(found, expected, "seed {seed}: {arch:#x} {number:#x} {args:x?} with {}", json());
                compared += 1;
            }
        }
    }
    println!(
        "{rounds} profiles, of {skipped} of which libseccomp makes nothing: {compared} system calls agree"
    );
    assert!(compared > 0 && skipped < rounds / 2);
}

/// The profile with only the first rule for each call, and one condition on each argument.
fn untangled(profile: &LinuxSeccomp) -> LinuxSeccomp {
    let mut json = serde_json::to_value(profile).expect("JSON");
    let mut named = BTreeSet::new();
    for rule in json["syscalls"].as_array_mut().into_iter().flatten() {
        if let Some(names) = rule["names"].as_array_mut() {
            names.retain(|name| named.insert(name.to_string()));
        }
        if let Some(args) = rule["args"].as_array_mut() {
            let mut indices = BTreeSet::new();
            args.retain(|arg| indices.insert(arg["index"].to_string()));
        }
    }
    serde_json::from_value(json).expect("a profile")
}

/// libseccomp 2.5 forgets to load the number of the call for an architecture, if another has conditions for one that this
/// one doesn't have; it then compares numbers with the architecture.
fn loads_numbers(filter: &[Instruction]) -> bool {
    let tests =
        filter.iter().enumerate().filter(|(_, i)| i.code == 0x15 && [X86_64, X86, AARCH64].contains(&i.k));
    tests.map(|(at, i)| filter[at + 1 + usize::from(i.jt)]).all(|next| [0x20, 0x06].contains(&next.code))
}

fn skip(test: &str) {
    // Straight to standard error: libtest captures eprintln, and what counts skips must see it.
    let line = format!("SKIP {test}: needs gcc and libseccomp-dev\n");
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).expect("standard error takes a line");
}

const AARCH64: u32 = 0xc000_00b7;

fn compare(name: &str, profile: &LinuxSeccomp, helper: &Path) {
    let (theirs, unknown) = reference(profile, helper);
    let ours = compile(profile, Options { native: Arch::ScmpArchX86_64, ..Options::default() })
        .expect("compiles")
        .filter;
    let known = without_unknown(profile, &unknown);
    let values = values(profile);
    let newest = 450;
    let (mut compared, mut steps) = (0, 0);
    for (arch, base) in [(X86_64, 0), (X86_64, X32), (X86, 0), (0xc000_00b7, 0)] {
        for number in (0..newest).filter(|number| known(arch, base, *number)) {
            for args in combinations(&values) {
                let (expected, _) = run(&theirs, arch, base + number, args);
                let (found, count) = run(&ours, arch, base + number, args);
                assert_eq!(found, expected, "{name}: {arch:#x} {base:#x}+{number} {args:x?}");
                compared += 1;
                steps += count;
            }
        }
    }
    println!(
        "{name}: {compared} system calls agree; ours has {} instructions, theirs {}; {} a call",
        ours.len(),
        theirs.len(),
        steps / compared
    );
}

/// A predicate for numbers that both know: ours is newer, and answers ENOSYS beyond what the profile names.
fn without_unknown(
    profile: &LinuxSeccomp,
    unknown: &BTreeSet<String>,
) -> impl Fn(u32, u32, u32) -> bool + use<> {
    let table = include_str!("../src/table.rs");
    let row = |line: &str| {
        let (name, numbers) = line.trim().strip_prefix("(\"")?.split_once("\", [")?;
        let numbers: Vec<i32> =
            numbers.trim_end_matches("]),").split(", ").filter_map(|n| n.parse().ok()).collect();
        Some((name.to_owned(), numbers))
    };
    let rows: Vec<(String, Vec<i32>)> = table.lines().filter_map(row).collect();
    let named: BTreeSet<String> =
        profile.syscalls().iter().flatten().flat_map(|s| s.names().clone()).collect();
    let enosys = !matches!(profile.default_action(), Action::ScmpActAllow | Action::ScmpActLog);
    let newest = move |column: usize| {
        let named =
            rows.iter().filter(|(name, _)| named.contains(name)).map(|(_, numbers)| numbers[column]).max();
        let skip: BTreeSet<i32> =
            rows.iter().filter(|(name, _)| unknown.contains(name)).map(|(_, n)| n[column]).collect();
        (if enosys { named.unwrap_or(-1) } else { i32::MAX }, skip)
    };
    let columns = [newest(0), newest(1), newest(2), newest(3)];
    move |arch, base, number| {
        let (newest, skip) = &columns[if arch == X86 {
            1
        } else if arch == AARCH64 {
            3
        } else if base == X32 {
            2
        } else {
            0
        }];
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        number <= *newest && !skip.contains(&number)
    }
}

/// Values around all that conditions compare with.
fn values(profile: &LinuxSeccomp) -> Vec<u64> {
    let args = profile.syscalls().iter().flatten().flat_map(|s| s.args().iter().flatten());
    let near =
        |v: u64| [v, v.wrapping_sub(1), v.wrapping_add(1), v ^ (1 << 32), v | 1 << 17, v & 0xffff_ffff, !v];
    let mut values: BTreeSet<u64> =
        args.flat_map(|a| [a.value(), a.value_two().unwrap_or(0)]).flat_map(near).collect();
    values.extend([0, 1, u64::MAX]);
    values.into_iter().collect()
}

/// Each value in each place, the others at 0 or also at that value.
fn combinations(values: &[u64]) -> Vec<[u64; 6]> {
    let mut all = vec![[0; 6]];
    for value in values {
        all.push([*value; 6]);
        for other in values.iter().step_by(13) {
            all.push([*value, *other, *other, *value, *other, *value]);
            all.push([*other, *value, *value, *other, *value, *other]);
        }
    }
    all
}

fn build_helper(dir: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/libseccomp.c");
    let helper = dir.join("helper");
    let gcc = Command::new("gcc")
        .arg("-o")
        .arg(&helper)
        .arg(source)
        .arg("-lseccomp")
        .stderr(Stdio::null())
        .status();
    gcc.is_ok_and(|status| status.success()).then_some(helper)
}

/// libseccomp's filter, and the names that it doesn't know.
fn reference(profile: &LinuxSeccomp, helper: &Path) -> (Vec<Instruction>, BTreeSet<String>) {
    try_reference(profile, helper).expect("libseccomp compiles it")
}

/// None: libseccomp refuses it, such as two rules with the same conditions.
fn try_reference(profile: &LinuxSeccomp, helper: &Path) -> Option<(Vec<Instruction>, BTreeSet<String>)> {
    let action = |action: Action, errno: Option<u32>| match action {
        Action::ScmpActErrno => 0x0005_0000 | errno.unwrap_or(1),
        Action::ScmpActTrace => 0x7ff0_0000 | errno.unwrap_or(1),
        Action::ScmpActKillProcess => 0x8000_0000,
        Action::ScmpActTrap => 0x0003_0000,
        Action::ScmpActLog => 0x7ffc_0000,
        Action::ScmpActAllow => 0x7fff_0000,
        Action::ScmpActKill | Action::ScmpActKillThread => 0,
        Action::ScmpActNotify => 0x7fc0_0000,
    };
    let default = action(profile.default_action(), profile.default_errno_ret());
    let mut input = format!("default {default}\n");
    // It takes none of the other endianness, and we don't know that one.
    for arch in profile.architectures().iter().flatten().filter(|arch| **arch != Arch::ScmpArchS390x) {
        input += &format!("arch {}\n", *arch as u32);
    }
    for syscall in profile.syscalls().iter().flatten() {
        let value = action(syscall.action(), syscall.errno_ret());
        if value != default {
            syscall.names().iter().for_each(|name| input += &rule(value, name, syscall));
        }
    }
    let mut child = Command::new(helper)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("helper");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("write");
    let output = child.wait_with_output().expect("helper");
    if !output.status.success() {
        return None;
    }
    let chunk = |c: &[u8]| Instruction {
        code: u16::from_ne_bytes([c[0], c[1]]),
        jt: c[2],
        jf: c[3],
        k: u32::from_ne_bytes([c[4], c[5], c[6], c[7]]),
    };
    let unknown = String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect();
    Some((output.stdout.chunks(8).map(chunk).collect(), unknown))
}

fn rule(value: u32, name: &str, syscall: &LinuxSyscall) -> String {
    let args = syscall.args().as_deref().unwrap_or_default();
    let one = |args: &[LinuxSeccompArg]| {
        let mut line = format!("rule {value} {name} {}", args.len());
        for arg in args {
            line += &format!(
                " {} {} {} {}",
                arg.index(),
                arg.op() as u32,
                arg.value(),
                arg.value_two().unwrap_or(0)
            );
        }
        line + "\n"
    };
    // Two on the same argument aren't for libseccomp; runc makes rules of their own of them.
    let repeated =
        args.iter().enumerate().any(|(at, arg)| args[..at].iter().any(|other| other.index() == arg.index()));
    if repeated { args.chunks(1).map(one).collect() } else { one(args) }
}
