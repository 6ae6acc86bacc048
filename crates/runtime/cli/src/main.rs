//! `corten`: the OCI runtime behind runc's command line.
#![forbid(unsafe_code)]

fn main() {}
