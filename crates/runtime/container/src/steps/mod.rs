//! What init does, one file a step. Each step says what it was doing when it fails; the order is in
//! [`crate::spawn::init`], with the reasons.

mod by_mount;
pub(crate) mod cgroup_mount;
pub(crate) mod console;
pub(crate) mod dev;
pub(crate) mod execve;
pub(crate) mod filter;
pub(crate) mod limits;
pub(crate) mod lsm;
pub(crate) mod mask;
pub(crate) mod mount;
mod no_pivot;
pub(crate) mod rootfs;
pub(crate) mod sysctl;
pub(crate) mod target;
pub(crate) mod user;
