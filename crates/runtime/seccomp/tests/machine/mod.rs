//! A machine for classic BPF, as the kernel runs it for seccomp: to see what filters answer.

use corten_seccomp::Instruction;

/// AUDIT_ARCH_X86_64.
#[allow(dead_code, reason = "not every test names architectures")]
pub(crate) const X86_64: u32 = 0xc000_003e;
/// AUDIT_ARCH_I386.
#[allow(dead_code, reason = "not every test names architectures")]
pub(crate) const X86: u32 = 0x4000_0003;
/// The mark of x32 numbers.
#[allow(dead_code, reason = "not every test names architectures")]
pub(crate) const X32: u32 = 0x4000_0000;

/// Runs a filter on a system call; also counts the instructions.
pub(crate) fn run(filter: &[Instruction], arch: u32, number: u32, args: [u64; 6]) -> (u32, usize) {
    let mut data = vec![number, arch, 0, 0];
    data.extend(args.iter().flat_map(|arg| [*arg as u32, (arg >> 32) as u32]));
    let (mut accumulator, mut at, mut count) = (0u32, 0usize, 0usize);
    let mut memory = [0u32; 16];
    let mut x = 0u32;
    loop {
        let i = filter[at];
        at += 1;
        count += 1;
        let jump = |yes: bool| usize::from(if yes { i.jt } else { i.jf });
        match i.code {
            0x20 => accumulator = data[i.k as usize / 4],
            0x54 => accumulator &= i.k,
            0x05 => at += i.k as usize,
            0x15 => at += jump(accumulator == i.k),
            0x25 => at += jump(accumulator > i.k),
            0x35 => at += jump(accumulator >= i.k),
            0x45 => at += jump(accumulator & i.k != 0),
            0x02 => memory[i.k as usize] = accumulator,
            0x60 => accumulator = memory[i.k as usize],
            0x07 => x = accumulator,
            0x87 => accumulator = x,
            0x06 => return (i.k, count),
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}
