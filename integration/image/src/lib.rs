//! Integration tests: image.
#![forbid(unsafe_code)]
