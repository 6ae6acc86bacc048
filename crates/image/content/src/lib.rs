//! Content-addressed blob store: ingest, verify, commit, read by digest.
#![forbid(unsafe_code)]
