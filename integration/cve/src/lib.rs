//! One test per CVE of container runtimes, by real attacks: see `tests/root.rs`; and what the attacks need.
#![forbid(unsafe_code)]

mod swap;

pub use swap::Swap;
