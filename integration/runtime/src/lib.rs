//! Integration tests: runtime.
#![forbid(unsafe_code)]
