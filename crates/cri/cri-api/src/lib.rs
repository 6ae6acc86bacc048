//! Messages and services of the Kubernetes Container Runtime Interface, version 1 ([`v1`]), and the few of our own
//! beside them ([`corten`]): clients and servers over tonic.
//!
//! Generated from proto/ by `cargo run -p xtask --features codegen -- codegen`. What is written by hand here is what
//! keeps secrets out of logs.
#![forbid(unsafe_code)]

mod redact;

/// CRI v1: `runtime_service_client`, `runtime_service_server`, `image_service_client`, `image_service_server` and
/// the messages. The messages can be serialised: secrets are left out of that.
#[allow(
    missing_docs,
    unreachable_pub,
    missing_debug_implementations,
    rustdoc::all,
    clippy::all,
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "generated from proto/cri"
)]
pub mod v1 {
    include!("generated/runtime.v1.rs");
}

/// Corten's services beside CRI, on the same socket: `images_client`, `images_server` and their messages.
#[allow(
    missing_docs,
    unreachable_pub,
    missing_debug_implementations,
    rustdoc::all,
    clippy::all,
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "generated from proto/corten"
)]
pub mod corten {
    include!("generated/corten.v1.rs");
}
