//! Compiled filters against the meaning of their profiles, for random profiles. integration/fuzz has a fuzzer choose them.

mod machine;
mod meaning;
mod profiles;
mod splitmix;

use corten_seccomp::{Error, Options, compile};
use oci_spec::runtime::Arch;

#[test]
fn filters_say_what_their_profiles_mean() {
    let (mut compared, mut refused) = (0, 0);
    for seed in 0..100 {
        let bytes = splitmix::bytes(seed);
        let profile = profiles::profile(&mut profiles::Choices(&bytes), false);
        let program = match compile(&profile, Options { native: Arch::ScmpArchX86_64, ..Options::default() })
        {
            Ok(program) => program,
            Err(Error::TooLong { .. }) => {
                refused += 1;
                continue;
            }
            Err(e) => panic!("seed {seed}: {e}"),
        };
        let arguments = profiles::arguments(&profile);
        for (arch, number) in profiles::calls() {
            for args in arguments.iter().skip(seed as usize % 5).step_by(5) {
                let (found, _) = machine::run(&program.filter, arch, number, *args);
                let expected = meaning::answer(&profile, arch, number, *args);
                assert_eq!(
                    found,
                    expected,
                    "seed {seed}: {arch:#x} {number:#x} {args:x?} with {}",
                    serde_json::to_string(&profile).unwrap_or_default()
                );
                compared += 1;
            }
        }
    }
    println!("{compared} calls agree, {refused} profiles are too long");
    assert!(compared > 100_000 && refused == 0);
}
