//! The whole chain over CRI: cortend with our shim and runtime, a real registry, the real CNI plugins.
//!
//! After each test: no pod, container, image, lease, bridge port, mount, namespace, cgroup, process or state file is left.
#![forbid(unsafe_code)]

mod root {
    pub(crate) mod chain;
    pub(crate) mod containers;
    pub(crate) mod crash;
    pub(crate) mod exec;
    pub(crate) mod failures;
    pub(crate) mod images;
    pub(crate) mod logs;
    pub(crate) mod pods;
}
