//! What an OCI runtime must do, tried on corten, runc and crun alike: see `tests/root.rs`.
#![forbid(unsafe_code)]
