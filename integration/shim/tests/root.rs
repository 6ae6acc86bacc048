//! The shim over corten, runc and crun: every test is written once and runs with each.
#![forbid(unsafe_code)]

mod root {
    pub(crate) mod api;
    pub(crate) mod bootstrap;
    pub(crate) mod crash;
    pub(crate) mod daemon;
    pub(crate) mod events;
    pub(crate) mod exec;
    pub(crate) mod hostile;
    pub(crate) mod io;
    pub(crate) mod lifecycle;
    pub(crate) mod logger;
    pub(crate) mod logs;
    pub(crate) mod sandbox;
    pub(crate) mod termination;
    pub(crate) mod wire;
}

/// Makes tests of functions that take a pod, or a containerd: one for each runtime.
macro_rules! for_runtimes {
    ($run:path, $($name:ident),*) => {
        mod corten {
            $(#[test]
            fn $name() -> anyhow::Result<()> {
                $run(integration_support::Kind::Corten, stringify!($name), super::$name)
            })*
        }
        mod runc {
            $(#[test]
            fn $name() -> anyhow::Result<()> {
                $run(integration_support::Kind::Runc, stringify!($name), super::$name)
            })*
        }
        mod crun {
            $(#[test]
            fn $name() -> anyhow::Result<()> {
                $run(integration_support::Kind::Crun, stringify!($name), super::$name)
            })*
        }
    };
}

/// Tests of functions that take a pod.
macro_rules! each_runtime {
    ($($name:ident),* $(,)?) => { crate::for_runtimes!(integration_shim::on, $($name),*); };
}

/// Tests of functions that take a containerd.
macro_rules! each_runtime_under_containerd {
    ($($name:ident),* $(,)?) => { crate::for_runtimes!(integration_shim::containerd::with, $($name),*); };
}

/// Tests that have nothing to do with the runtime.
macro_rules! with_containerd {
    ($($name:ident),* $(,)?) => {
        mod any {
            $(#[test]
            fn $name() -> anyhow::Result<()> {
                integration_shim::containerd::with(
                    integration_support::Kind::Corten, stringify!($name), super::$name)
            })*
        }
    };
}
pub(crate) use {each_runtime, each_runtime_under_containerd, for_runtimes, with_containerd};
