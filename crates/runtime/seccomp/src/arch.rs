//! Architectures, and the frame of the program: which one is it, and on to its search tree.

use oci_spec::runtime::Arch;

use crate::{
    Error, Instruction,
    action::{KILL_THREAD, NO_SUCH_CALL},
    rules::Rules,
    search,
    table::{AARCH64, X32, X86, X86_64},
};

pub(crate) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(crate) const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
pub(crate) const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(crate) const JUMP_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
pub(crate) const JUMP_GREATER_EQUAL: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub(crate) const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub(crate) const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// Marks the numbers of x32, which has x86_64's audit architecture.
pub(crate) const X32_BIT: u32 = 0x4000_0000;

pub(crate) fn op(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// An architecture that the filter is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    /// AUDIT_ARCH_*.
    pub(crate) audit: u32,
    /// Its column in the table.
    pub(crate) column: usize,
}

const TARGETS: [(Arch, Target); 4] = [
    (Arch::ScmpArchX86_64, Target { audit: 0xc000_003e, column: X86_64 }),
    (Arch::ScmpArchX86, Target { audit: 0x4000_0003, column: X86 }),
    (Arch::ScmpArchX32, Target { audit: 0xc000_003e, column: X32 }),
    (Arch::ScmpArchAarch64, Target { audit: 0xc000_00b7, column: AARCH64 }),
];

/// What the filter is for: the machine's own architecture first, then the profile's.
pub(crate) fn targets(
    archs: &[Arch],
    native: Arch,
    warnings: &mut Vec<String>,
) -> Result<Vec<Target>, Error> {
    let native = match native {
        Arch::ScmpArchNative if cfg!(target_arch = "x86_64") => Arch::ScmpArchX86_64,
        Arch::ScmpArchNative if cfg!(target_arch = "aarch64") => Arch::ScmpArchAarch64,
        other => other,
    };
    let find = |arch: Arch| TARGETS.iter().find(|(known, _)| *known == arch).map(|(_, target)| *target);
    let mut targets = vec![find(native).ok_or(Error::Native { native: std::env::consts::ARCH })?];
    for arch in archs {
        match find(*arch) {
            Some(target) if !targets.contains(&target) => targets.push(target),
            None if *arch != Arch::ScmpArchNative => {
                warnings.push(format!("no system call table for {arch:?}: its programs will be killed"));
            }
            _ => {}
        }
    }
    Ok(targets)
}

/// The whole program.
pub(crate) fn program(targets: &[Target], rules: &Rules) -> Vec<Instruction> {
    let mut program = vec![op(LOAD, 0, 0, ARCHITECTURE)];
    let mut audits: Vec<u32> = targets.iter().map(|target| target.audit).collect();
    audits.dedup();
    let mut seen = Vec::new();
    for audit in audits {
        if seen.contains(&audit) {
            continue; // x32, with i386 between it and x86_64.
        }
        seen.push(audit);
        let block = block(targets, audit, rules);
        // If it isn't this one, over the block to the next. A conditional jump reaches only 255 instructions.
        program.push(op(JUMP_EQUAL, 1, 0, audit));
        program.push(op(JUMP, 0, 0, length(&block)));
        program.extend(block);
    }
    program.push(op(RETURN, 0, 0, KILL_THREAD));
    program
}

/// All of one audit architecture.
fn block(targets: &[Target], audit: u32, rules: &Rules) -> Vec<Instruction> {
    let tree = |column| {
        let target = targets.iter().find(|target| target.audit == audit && target.column == column);
        target.map(|target| numbers(target, rules))
    };
    let mut block = vec![op(LOAD, 0, 0, NUMBER)];
    if audit == TARGETS[0].1.audit {
        let killed = || vec![op(RETURN, 0, 0, KILL_THREAD)];
        // -1 is no x32 number but what a tracer (proot, gVisor) makes of a call that is not to be done, and what a program
        // calls of which it doesn't know the number. It's answered as any number that doesn't exist.
        let only_none = || {
            let newest = rules.newest(X86_64).filter(|_| rules.enosys);
            let no_call = newest.map_or(rules.default, |_| NO_SUCH_CALL);
            let none = [op(JUMP_EQUAL, 0, 1, u32::MAX), op(RETURN, 0, 0, no_call)];
            [&none[..], &killed()].concat()
        };
        let (x86_64, x32) = (tree(X86_64).unwrap_or_else(killed), tree(X32).unwrap_or_else(only_none));
        block.push(op(JUMP_GREATER_EQUAL, 0, 1, X32_BIT));
        block.push(op(JUMP, 0, 0, length(&x86_64)));
        block.extend(x86_64);
        block.extend(x32);
    } else {
        block.extend(
            targets
                .iter()
                .find(|target| target.audit == audit)
                .map(|t| numbers(t, rules))
                .unwrap_or_default(),
        );
    }
    block
}

/// One architecture's numbers.
fn numbers(target: &Target, rules: &Rules) -> Vec<Instruction> {
    let decisions = rules.decisions(target.column);
    let base = if target.column == X32 { X32_BIT } else { 0 };
    let mut code = Vec::new();
    if let Some(newest) = decisions.newest.filter(|_| rules.enosys) {
        code.push(op(JUMP_GREATER, 0, 1, base + newest));
        code.push(op(RETURN, 0, 0, NO_SUCH_CALL));
    }
    let wide = !matches!(target.column, X86 | X32);
    code.extend(search::tree(&decisions, rules.default, base, wide));
    code
}

pub(crate) fn length(code: &[Instruction]) -> u32 {
    u32::try_from(code.len()).expect("a program of 4 G instructions doesn't fit into memory")
}
