//! Integration tests: cri.
#![forbid(unsafe_code)]
