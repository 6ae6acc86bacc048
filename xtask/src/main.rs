//! `cargo xtask`: everything that is done to this repository.
#![forbid(unsafe_code)]

fn main() {}
