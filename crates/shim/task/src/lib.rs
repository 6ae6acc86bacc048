//! The daemon's side of the shim: starts shims, finds them again after a restart, hands out task handles.
#![forbid(unsafe_code)]
