//! The whole chain over CRI: a blocking client, pod and container configurations as a kubelet writes them, and a
//! [`Node`]: registry, daemon and client together.
#![forbid(unsafe_code)]

mod client;
mod config;
mod node;

pub use client::Client;
pub use config::{container, pod};
pub use corten_cri_api::v1;
pub use node::{LogLine, Node};
