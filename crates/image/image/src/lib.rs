//! The image library's facade: pull, unpack, list, remove, collect garbage.
#![forbid(unsafe_code)]
