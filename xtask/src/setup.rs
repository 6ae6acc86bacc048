//! What is needed from Debian, and installing it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::run;

/// What a node needs beside Corten, and what stands in for the rest of the world.
pub(crate) const QUICKSTART: [&str; 6] = [
    "ca-certificates",
    "containernetworking-plugins", // the CNI plugins
    "docker-registry",             // a real registry
    "busybox-static",              // what the image is made of
    "iproute2",
    "iptables", // the portmap plugin calls it
];

/// What the privileged tests need besides: peers to compare with.
pub(crate) const TESTS: [&str; 10] = [
    "runc",
    "crun",
    "criu",
    "apache2-utils",
    "libseccomp-dev",
    "procps",
    "attr",
    "keyutils",
    "uidmap",
    "e2fsprogs",
];

/// What libFuzzer is built with.
pub(crate) const FUZZ: [&str; 1] = ["g++"];

/// What the tests with real engines need.
pub(crate) const INTEROP: [&str; 7] =
    ["containerd", "podman", "docker.io", "runc", "criu", "docker-registry", "busybox-static"];

/// What the benchmarks need.
pub(crate) const BENCH: [&str; 7] =
    ["runc", "crun", "busybox-static", "time", "gcc", "python3", "libseccomp-dev"];

/// What the benchmark of the shim needs: the peers' shim is in containerd's package.
pub(crate) const BENCH_SHIM: [&str; 4] = ["containerd", "runc", "crun", "busybox-static"];

/// Installs the packages that are missing, after saying which.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing from Debian: {}", missing.join(" "));
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").stdin(std::process::Stdio::null());
        command
    };
    run(apt().args(["update", "-q"])).context("is this a Debian machine with a package source?")?;
    let quiet = NoServices::forbid()?;
    run(apt().args(["install", "-y", "-q", "--no-install-recommends"]).args(&missing))?;
    drop(quiet);
    match missing.iter().find(|package| !installed(package)) {
        Some(package) => bail!("apt-get succeeded, but {package} isn't installed"),
        None => Ok(()),
    }
}

/// While this lives, no package starts a service: tests start their own, and a machine's must not be in their way.
struct NoServices(Option<&'static Path>);

/// Debian's packages ask it before they start anything; 101 is no.
const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn forbid() -> Result<Self> {
        let path = Path::new(POLICY);
        if path.exists() {
            return Ok(Self(None)); // the machine's own policy
        }
        fs::write(path, "#!/bin/sh\nexit 101\n").with_context(|| format!("can't write {POLICY}"))?;
        let forbidden = Self(Some(path));
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        Ok(forbidden)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            fs::remove_file(path).ok(); // because there is nobody to tell
        }
    }
}

fn installed(package: &str) -> bool {
    let output = Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Abbrev}", package]).output();
    output.is_ok_and(|output| output.stdout.starts_with(b"ii"))
}
