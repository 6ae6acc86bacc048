//! Compiles the seccomp section of an OCI config.json to BPF: a pure function.
#![forbid(unsafe_code)]
