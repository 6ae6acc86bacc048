//! What an OCI runtime must do, tried on corten, runc and crun alike.
//!
//! Every test here is written once and runs three times. One that runc fails is suspect until explained; where a peer
//! knowingly does something else, the test says so with [`T::differs`] and is counted as skipped for that peer alone.
//! After each test the scope proves that no mount, cgroup, process or state file is left.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, ensure};

mod root {
    pub(crate) mod apparmor;
    pub(crate) mod bad_input;
    pub(crate) mod cgroups;
    pub(crate) mod checkpoint;
    pub(crate) mod checkpoint_flags;
    pub(crate) mod checkpoint_sockets;
    pub(crate) mod command_line;
    pub(crate) mod crash;
    pub(crate) mod crun_suite;
    pub(crate) mod devices;
    pub(crate) mod events;
    pub(crate) mod exec;
    pub(crate) mod hooks;
    pub(crate) mod keyring;
    pub(crate) mod legacy;
    pub(crate) mod lifecycle;
    pub(crate) mod mount_options;
    pub(crate) mod mounts;
    pub(crate) mod namespaces;
    pub(crate) mod net_devices;
    pub(crate) mod notify;
    pub(crate) mod options;
    pub(crate) mod process;
    pub(crate) mod races;
    pub(crate) mod rootless;
    pub(crate) mod runc_suite;
    pub(crate) mod scheduling;
    pub(crate) mod security;
    pub(crate) mod selinux;
    pub(crate) mod stuck;
    pub(crate) mod systemd;
    pub(crate) mod terminal;
    pub(crate) mod time;
    pub(crate) mod unified;
    pub(crate) mod unsupported;
    pub(crate) mod user_bus;
    pub(crate) mod userns;
}

/// One test on one runtime.
pub(crate) use integration_support::Trial as T;

/// Demands that `text` contains `needle`.
#[track_caller]
pub(crate) fn has(text: &str, needle: &str) -> Result<()> {
    ensure!(text.contains(needle), "expected {needle:?} in:\n{text}");
    Ok(())
}

/// Demands that `text` contains one of the `needles`.
pub(crate) fn has_one(text: &str, needles: &[&str]) -> Result<()> {
    ensure!(needles.iter().any(|n| text.contains(n)), "expected one of {needles:?} in:\n{text}");
    Ok(())
}

/// Demands that `text` doesn't contain `needle`.
pub(crate) fn lacks(text: &str, needle: &str) -> Result<()> {
    ensure!(!text.contains(needle), "unexpected {needle:?} in:\n{text}");
    Ok(())
}

/// The value of the line `name: value`.
pub(crate) fn value<'t>(text: &'t str, name: &str) -> Result<&'t str> {
    let prefix = format!("{name}: ");
    text.lines()
        .find_map(|l| l.strip_prefix(&prefix))
        .with_context(|| format!("no line {name:?} in:\n{text}"))
}

/// Makes a `#[test]` for each runtime out of each function `fn(&T) -> Result<()>`.
#[macro_export]
macro_rules! each_runtime {
    ($($name:ident),* $(,)?) => {
        $crate::each_runtime!(@one corten Corten $($name)*);
        $crate::each_runtime!(@one runc Runc $($name)*);
        $crate::each_runtime!(@one crun Crun $($name)*);
    };
    (@one $module:ident $kind:ident $($name:ident)*) => {
        mod $module {
            $(
                #[test]
                fn $name() -> anyhow::Result<()> {
                    integration_support::Trial::on(integration_support::Kind::$kind, stringify!($name), super::$name)
                }
            )*
        }
    };
}
