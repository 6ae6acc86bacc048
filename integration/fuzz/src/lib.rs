//! Everything that takes bytes from outside, as functions of bytes.
//!
//! A fuzzer feeds them (`cargo xtask fuzz`, fuzz/), `tests/corpus.rs` replays what is in corpus/. They panic when a
//! parser does, or when what it says can't be true; that it refuses is fine.
#![forbid(unsafe_code)]

mod filter;
mod wire;

/// A function of bytes, with its name: that of its directory in corpus/ and of its fuzz target.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 15] = [
    ("config", corten_container::fuzz::config),
    ("process", corten_container::fuzz::process),
    ("last-words", corten_container::fuzz::last_words),
    ("record", corten_container::fuzz::record),
    ("criu", corten_container::fuzz::criu),
    ("netlink", corten_sys::netlink::fuzz),
    ("seccomp", filter::seccomp),
    ("seccomp-rules", filter::rules),
    ("systemd", corten_cgroups::fuzz::systemd),
    ("cgroup-files", corten_cgroups::fuzz::files),
    ("proc-files", corten_shim::fuzz::proc_files),
    ("shim-requests", corten_shim::fuzz::requests),
    ("output", corten_shim::fuzz::output),
    ("frames", wire::frames),
    ("messages", wire::messages),
];

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<fn(&[u8])> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, function)| *function)
}
