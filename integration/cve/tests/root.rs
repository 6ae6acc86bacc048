//! One test per CVE of container runtimes, named by it. Each attacks through a real container, and each has been seen
//! to fail: its comment says with which defence taken out, and what it printed.
//!
//! Where the attack means something to them, runc and crun (Debian's, with Debian's fixes) are attacked too; where
//! they fall to it, or answer otherwise, the test says so and counts as skipped for them.
#![forbid(unsafe_code)]

use anyhow::{Result, ensure};
use integration_support::{Bundle, Container, Finished, Kind, Runtime, Scope};

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
pub(crate) struct T<'a> {
    pub(crate) scope: &'a Scope,
    pub(crate) rt: &'a Runtime,
}

impl T<'_> {
    /// True when this peer is known to do something else; the test then counts as skipped for it.
    pub(crate) fn differs(&self, kind: Kind, why: &str) -> bool {
        if self.rt.kind() == kind {
            integration_support::skip(why);
        }
        self.rt.kind() == kind
    }

    /// A bundle that runs a shell script.
    pub(crate) fn sh(&self, script: &str) -> Bundle {
        Bundle::sh(self.scope, "c", script)
    }

    /// Writes the bundle and starts it.
    pub(crate) fn start(&self, bundle: Bundle) -> Result<Container<'_>> {
        self.rt.start(&bundle.write()?)
    }

    /// Runs what has been written, and demands that it is refused with a word about `about`.
    pub(crate) fn refused(&self, bundle: &Bundle, about: &str) -> Result<Finished> {
        let finished = self.rt.run(bundle)?.err()?;
        ensure!(finished.stderr.contains(about), "expected {about:?} in: {finished:?}");
        Ok(finished)
    }
}

pub(crate) fn on(kind: Kind, name: &str, attack: fn(&T<'_>) -> Result<()>) -> Result<()> {
    let name = name.rsplit("::").next().unwrap_or(name);
    Scope::test(name, |scope| match Runtime::for_test(kind, scope)? {
        Some(rt) => attack(&T { scope, rt: &rt }),
        None => Ok(()),
    })
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
