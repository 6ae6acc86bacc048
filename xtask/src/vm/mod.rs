//! `cargo xtask test vm`: the privileged tests on machines with other cgroups, another PID 1 and another LSM than ours.
//!
//! The machine is a virtual one, emulated, made from Debian packages (see docs/decisions/0009-vm-lane.md). Its disks are
//! never written to, so that every run begins with the same machine; two run side by side.

mod guest;
mod image;
mod job;
mod machine;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::build;
use crate::setup;
use crate::test::{Counts, EVERYTHING, Needs, TestBinary, prepare, test_binaries};
use guest::Guest;
use image::Image;

/// What a lane with guests needs of the machine, besides.
const PACKAGES: [&str; 4] = ["qemu-system-x86", "mmdebstrap", "busybox-static", "e2fsprogs"];

/// How long a guest may take for all of its tests.
const LIMIT: Duration = Duration::from_secs(1800);

/// A test binary that runs in guests.
struct Test {
    package: &'static str,
    /// As the root lane names it.
    name: &'static str,
    /// Those of its tests that have one of these words in their names; without any, all.
    words: &'static [&'static str],
    guests: &'static [Guest],
}

/// What runs in guests. The peers are for the root lane, and for those who ask for them by name.
const TESTS: [Test; 7] = [
    Test {
        package: "corten-cgroups",
        name: "crates/runtime/cgroups root",
        words: &[],
        guests: &[Guest::Plain, Guest::Systemd, Guest::V1, Guest::Hybrid],
    },
    Test {
        package: "integration-runtime",
        name: "integration/runtime root",
        // What depends on the cgroups, on a shared root, or on an older kernel than the host's.
        words: &[
            "::apparmor::",
            "::cgroups::",
            "::checkpoint",
            "::devices::",
            "::exec::",
            "::hooks::",
            "::lifecycle::",
            "::mounts::",
            "::namespaces::",
            "::unified::",
        ],
        guests: &[Guest::Plain],
    },
    // What doesn't depend on who is PID 1 needn't be run twice.
    Test {
        package: "integration-runtime",
        name: "integration/runtime root",
        words: &["::cgroups::", "::unified::", "::systemd::", "::user_bus::", "::lifecycle::", "::exec::"],
        guests: &[Guest::Systemd],
    },
    Test {
        package: "integration-runtime",
        name: "integration/runtime root",
        words: &["::cgroups::", "::devices::", "::systemd::", "::legacy::"],
        guests: &[Guest::V1],
    },
    Test {
        package: "integration-runtime",
        name: "integration/runtime root",
        words: &["::devices::", "::devices_outlive_a_reload", "::legacy::"],
        guests: &[Guest::Hybrid],
    },
    Test {
        package: "integration-runtime",
        name: "integration/runtime root",
        words: &["::keyring::", "::selinux::"],
        guests: &[Guest::Selinux],
    },
    // What the shim does itself with cgroups, and what criu can't do on other machines.
    Test {
        package: "integration-shim",
        name: "integration/shim root",
        words: &[
            "::lifecycle::corten::",
            "::termination::corten::",
            "::a_process_in_state_d",
            "::a_timeout_kills_daemons_too",
            "::a_log_disk_that_hangs",
            "::a_checkpoint_is_restored",
            "::figures_are",
            "::out_of_memory",
        ],
        guests: &[Guest::Plain],
    },
];

/// How many guests run at a time: emulation is bound to one core each, and memory isn't endless.
const AT_A_TIME: usize = 2;

/// Builds what is needed, then runs the tests whose names contain one of `filter` in all guests, or in those that are
/// named first in it.
pub(crate) fn vm(filter: &[&str]) -> Result<()> {
    let (names, filter) =
        filter.split_at(filter.iter().take_while(|word| Guest::named(word).is_some()).count());
    let mut guests: Vec<Guest> = names.iter().filter_map(|name| Guest::named(name)).collect();
    if guests.is_empty() {
        guests.extend(Guest::ALL);
    }
    prepare()?;
    setup::install(&PACKAGES)?;
    // Who has built the binaries, quicker than they are shipped, says where they are, and is in a hurry.
    let packages = TESTS.map(|test| ["--package", test.package]);
    let (bin, packages) = match std::env::var_os("CORTEN_BIN_DIR") {
        Some(dir) => (PathBuf::from(dir), packages.as_flattened()),
        None => (build::build()?, EVERYTHING),
    };
    let tests = test_binaries(Needs::Root, packages)?;
    let dir = build::target_dir().join("vm");
    sweep(&dir);
    let image = Image::ready(&dir)?;
    let queue = Mutex::new(guests.into_iter());
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    let counts = std::thread::scope(|scope| {
        let worker = || -> Result<Counts> {
            let mut counts = Vec::new();
            while let Some(guest) = next() {
                counts.push(run(guest, &image, &dir, &tests, &bin, filter)?);
            }
            Ok(counts.into_iter().sum())
        };
        let workers = [(); AT_A_TIME].map(|()| scope.spawn(worker));
        let join = |worker: std::thread::ScopedJoinHandle<'_, Result<Counts>>| {
            worker.join().map_err(|_| anyhow!("the thread of a guest panicked"))?
        };
        workers.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    counts.into_iter().sum::<Counts>().verdict()
}

/// Removes what runs that were killed have left: `run-<pid>-…` and `job-<pid>-…` of processes that are no more.
fn sweep(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.split('-').nth(1).filter(|_| name.starts_with("run-") || name.starts_with("job-"));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let path = entry.path();
            // One of them is the right one, and nothing breaks if neither is.
            std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path)).ok();
        }
    }
}

/// Runs the tests of one guest.
fn run(
    guest: Guest,
    image: &Image,
    dir: &Path,
    tests: &[TestBinary],
    bin: &Path,
    filter: &[&str],
) -> Result<Counts> {
    let mut chosen = Vec::new();
    for Test { name, words, guests, .. } in TESTS {
        let test = tests.iter().find(|test| test.name == name);
        let test = test.with_context(|| format!("there is no test binary {name:?} any more"))?;
        if guests.contains(&guest) {
            chosen.push(job::Chosen::new(test, if filter.is_empty() { words } else { filter }));
        }
    }
    let started = Instant::now();
    let disk = job::Disk::make(dir, guest, &chosen, bin)?;
    let mut said = machine::run(image, guest, disk.path(), LIMIT, dir)?;
    // Tests that fail don't end a guest. What does may be the emulator's, or the machine's that has too much to do.
    if let Some(failure) = said.failure.take() {
        eprintln!("{failure}\nagain: the {} guest", guest.name());
        said = machine::run(image, guest, disk.path(), LIMIT, dir)?;
    }
    let counts = job::report(guest, &chosen, &said);
    eprintln!("the {} guest took {:.0} s", guest.name(), started.elapsed().as_secs_f64());
    Ok(counts)
}
