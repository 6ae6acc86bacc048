//! Applies and produces layer tars: whiteouts, xattrs, hard links, no escapes.
#![forbid(unsafe_code)]
