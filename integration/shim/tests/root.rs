//! The shim over corten, runc and crun: every test is written once and runs with each.
#![forbid(unsafe_code)]

mod root {
    pub(crate) mod crash;
    pub(crate) mod daemon;
    pub(crate) mod exec;
    pub(crate) mod hostile;
    pub(crate) mod io;
    pub(crate) mod lifecycle;
    pub(crate) mod logs;
    pub(crate) mod termination;
    pub(crate) mod wire;
}

/// Makes tests of functions that take a pod.
macro_rules! each_runtime {
    ($($name:ident),* $(,)?) => {
        mod corten {
            $(#[test]
            fn $name() -> anyhow::Result<()> {
                integration_shim::on(integration_support::Kind::Corten, stringify!($name), super::$name)
            })*
        }
        mod runc {
            $(#[test]
            fn $name() -> anyhow::Result<()> {
                integration_shim::on(integration_support::Kind::Runc, stringify!($name), super::$name)
            })*
        }
        mod crun {
            $(#[test]
            fn $name() -> anyhow::Result<()> {
                integration_shim::on(integration_support::Kind::Crun, stringify!($name), super::$name)
            })*
        }
    };
}
pub(crate) use each_runtime;
