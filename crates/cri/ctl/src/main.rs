//! `cortenctl`: the command line for people, over public APIs only.
#![forbid(unsafe_code)]

fn main() {}
