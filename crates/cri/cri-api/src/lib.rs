//! Generated CRI v1 messages and services (tonic and prost).
#![forbid(unsafe_code)]
