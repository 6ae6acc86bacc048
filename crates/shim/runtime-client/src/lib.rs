//! Drives any OCI runtime binary as an async Rust API with typed errors.
#![forbid(unsafe_code)]
