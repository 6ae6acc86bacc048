//! `cortend`: reads the config, builds everything in one visible function, serves, recovers.
#![forbid(unsafe_code)]

fn main() {}
