//! Seccomp profiles: whatever compiles is a filter that the kernel would take and that answers every call, the same
//! filter each time.

use corten_seccomp::{Options, compile};
use oci_spec::runtime::{Arch, LinuxSeccomp};

/// The machine that the tests of corten-seccomp run filters on; it panics where the kernel would refuse them.
#[path = "../../../crates/runtime/seccomp/tests/machine/mod.rs"]
mod machine;
/// What those tests compare filters with, and what they make profiles of.
#[path = "../../../crates/runtime/seccomp/tests/meaning/mod.rs"]
mod meaning;
#[path = "../../../crates/runtime/seccomp/tests/profiles/mod.rs"]
mod profiles;

use machine::{X32, X86, X86_64, run};

/// The kernel's limit (BPF_MAXINSNS).
const MOST: usize = 4096;

/// A `linux.seccomp` as JSON.
pub(crate) fn seccomp(bytes: &[u8]) {
    let Ok(profile) = serde_json::from_slice::<LinuxSeccomp>(bytes) else { return };
    let options = || Options { native: Arch::ScmpArchX86_64, ..Options::default() };
    let (Ok(program), Ok(again)) = (compile(&profile, options()), compile(&profile, options())) else {
        return;
    };
    let filter = &program.filter;
    assert!(*filter == again.filter, "the same profile compiles to different filters");
    assert!(!filter.is_empty() && filter.len() <= MOST, "{} instructions", filter.len());
    for arch in [X86_64, X86, 0xc000_00b7] {
        for number in (0..470).chain([X32, X32 + 59, X32 + 520, u32::MAX]) {
            for args in [[0; 6], [u64::MAX; 6], [1 << 32; 6]] {
                run(filter, arch, number, args);
            }
        }
    }
}

/// Choices of which a profile is made: its filter says what it means.
pub(crate) fn rules(bytes: &[u8]) {
    let profile = profiles::profile(&mut profiles::Choices(bytes), false);
    let options = Options { native: Arch::ScmpArchX86_64, ..Options::default() };
    let Ok(program) = compile(&profile, options) else { return };
    let arguments = profiles::arguments(&profile);
    for (at, (arch, number)) in profiles::calls().into_iter().enumerate() {
        // All numbers with some arguments, and all arguments with some numbers.
        for args in arguments.iter().skip(at % 29).step_by(29) {
            let expected = meaning::answer(&profile, arch, number, *args);
            let (found, _) = run(&program.filter, arch, number, *args);
            assert_eq!(found, expected, "{arch:#x} {number:#x} {args:x?} with {profile:?}");
        }
    }
}
