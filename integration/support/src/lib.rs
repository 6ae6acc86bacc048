//! Integration tests: support.
#![forbid(unsafe_code)]
