//! Loads an OCI bundle and reports everything wrong with its config.json.
#![forbid(unsafe_code)]
