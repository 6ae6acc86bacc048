//! Seccomp profiles: whatever compiles is a filter that the kernel would take, and that answers what the profile has.

use corten_seccomp::{Instruction, Options, compile};
use oci_spec::runtime::{Arch, LinuxSeccomp};

/// The kernel's limit (BPF_MAXINSNS).
const MOST: usize = 4096;
const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
const X32: u32 = 0x4000_0000;

/// A `linux.seccomp` as JSON.
pub(crate) fn seccomp(bytes: &[u8]) {
    let Ok(profile) = serde_json::from_slice::<LinuxSeccomp>(bytes) else { return };
    let options = || Options { native: Arch::ScmpArchX86_64 };
    let (Ok(program), Ok(again)) = (compile(&profile, options()), compile(&profile, options())) else {
        return;
    };
    let filter = &program.filter;
    assert!(*filter == again.filter, "the same profile compiles to different filters");
    assert!(!filter.is_empty() && filter.len() <= MOST, "{} instructions", filter.len());
    for arch in [X86_64, X86, 0xc000_00b7] {
        for number in (0..470).chain([X32, X32 + 59, X32 + 520, u32::MAX]) {
            for args in [[0; 6], [u64::MAX; 6], [1 << 32; 6]] {
                let (before, after) =
                    (run(filter, arch, number, args), run(&again.filter, arch, number, args));
                assert_eq!(before, after);
            }
        }
    }
}

/// Runs a filter as the kernel does; panics where the kernel would refuse it.
fn run(filter: &[Instruction], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let mut data = vec![number, arch, 0, 0];
    data.extend(args.iter().flat_map(|arg| [*arg as u32, (arg >> 32) as u32]));
    let (mut accumulator, mut x, mut at, mut memory) = (0_u32, 0_u32, 0_usize, [0_u32; 16]);
    loop {
        let i = &filter[at];
        at += 1;
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
            0x06 => return i.k,
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}
