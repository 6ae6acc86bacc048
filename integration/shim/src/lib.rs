//! Integration tests: shim.
#![forbid(unsafe_code)]
