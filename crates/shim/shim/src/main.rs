//! `containerd-shim-corten-v2`, and the library to write other shims.
#![forbid(unsafe_code)]

fn main() {}
