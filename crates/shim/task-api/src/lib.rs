//! What a shim and its client say to each other: containerd's Task and Events services and Corten's own ([`proto`]),
//! over [`ttrpc`], which is gRPC's idea without HTTP/2: a ten-byte header and a protobuf message.
//!
//! The messages are generated from proto/ by `cargo run -p xtask --features codegen -- codegen`; frames, client and
//! server are written here, small enough to live in a process that there is one of per pod.
#![forbid(unsafe_code)]

pub mod proto;
pub mod services;
pub mod time;
pub mod ttrpc;

/// What all messages are.
pub use prost::Message;
