//! Creates and pins the namespaces of a pod and connects them to the network through CNI plugins.
//!
//! ```text
//! PodNamespaces::create ──▶ <dir>/{net,ipc,uts}     pinned by bind mounts, nobody has to live in them
//! Cni::add ──▶ record in cache_dir ──▶ plugin 1 ADD ──▶ plugin 2 ADD ──▶ result into the record
//! Cni::del ──▶ plugin 2 DEL ──▶ plugin 1 DEL ──▶ record removed
//! ```
//!
//! The record is on disk before the first plugin runs and holds the configuration that ADD used: whatever happens
//! after (a crash, a reboot, an edit of the configuration), DEL gives back what ADD took.
//!
//! Spec: <https://github.com/containernetworking/cni/blob/main/SPEC.md>, versions 0.1.0 to 1.1.0.
#![forbid(unsafe_code)]

mod cache;
mod capabilities;
mod config;
mod error;
mod namespaces;
mod network;
mod plugin;
mod result;

pub use capabilities::{Bandwidth, Dns, IpRange, PodNetwork, PortMapping};
pub use config::{Network, load};
pub use error::{Error, Result};
pub use namespaces::{Kinds, PodNamespaces};
pub use network::{Cni, CniConfig};
pub use result::{CniResult, Interface};
