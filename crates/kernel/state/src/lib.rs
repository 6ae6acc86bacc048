//! Crash-safe, versioned records and locks under a state directory.
#![forbid(unsafe_code)]
