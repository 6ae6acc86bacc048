//! One test per CVE of container runtimes, named by it. Each attacks through a real container, and each has been seen
//! to fail: its comment says with which defence taken out, and what it printed.
//!
//! Where the attack means something to them, runc and crun (Debian's, with Debian's fixes) are attacked too; where
//! they fall to it, or answer otherwise, the test says so and counts as skipped for them.
#![forbid(unsafe_code)]

use anyhow::Result;
use integration_support::Kind;

mod root {
    pub(crate) mod cve_2016_9962;
    pub(crate) mod cve_2019_16884;
    pub(crate) mod cve_2019_19921;
    pub(crate) mod cve_2019_5736;
    pub(crate) mod cve_2021_30465;
    pub(crate) mod cve_2022_29162;
    pub(crate) mod cve_2023_25809;
    pub(crate) mod cve_2023_27561;
    pub(crate) mod cve_2023_28642;
    pub(crate) mod cve_2024_21626;
    pub(crate) mod cve_2024_45310;
    pub(crate) mod cve_2025_31133;
    pub(crate) mod cve_2025_52565;
    pub(crate) mod cve_2025_52881;
    pub(crate) mod cve_2026_30892;
    pub(crate) mod cve_2026_41579;
    pub(crate) mod cve_2026_47766;
    pub(crate) mod hardening;
}

/// One attack on one runtime.
pub(crate) use integration_support::Trial as T;

pub(crate) fn on(kind: Kind, name: &str, attack: fn(&T<'_>) -> Result<()>) -> Result<()> {
    let name = name.rsplit("::").next().unwrap_or(name);
    T::on(kind, name, attack)
}

/// Makes a `#[test]` for each of the runtimes named, out of functions `fn(&T) -> Result<()>`.
#[macro_export]
macro_rules! attack {
    ([$($module:ident $kind:ident),+] $names:tt) => {
        $($crate::attack!(@one $module $kind $names);)+
    };
    (@one $module:ident $kind:ident ($($name:ident),+)) => {
        mod $module {
            $(
                #[test]
                fn $name() -> anyhow::Result<()> {
                    $crate::on(integration_support::Kind::$kind, module_path!(), super::$name)
                }
            )+
        }
    };
}
