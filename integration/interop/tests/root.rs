//! containerd, podman and Docker drive our runtime and our shim as they drive their own.
//!
//! After each test the scope proves that no mount, cgroup, process, network link or state file is left.
#![forbid(unsafe_code)]

mod root {
    pub(crate) mod cri;
    pub(crate) mod ctr;
    pub(crate) mod ctr_faults;
    pub(crate) mod docker;
    pub(crate) mod podman;
}

use anyhow::Result;
use integration_interop::{Containerd, Flavour};
use integration_support::binary;

/// How containerd comes to our runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// Its own shim, told the runtime's path by `BinaryName`.
    RuncShim,
    /// Our shim, found by its name in `PATH`.
    OurShim,
    /// Our shim below the containerd that `CORTEN_CONTAINERD_DIR` names.
    OurShimNewest,
}

/// A containerd, and how it comes to our runtime.
pub(crate) struct T<'a, 'b> {
    pub(crate) containerd: &'a mut Containerd<'b>,
    pub(crate) via: Via,
    pub(crate) image: String,
}

impl T<'_, '_> {
    /// An id of the test's.
    pub(crate) fn id(&self, name: &str) -> String {
        self.containerd.scope.id(name)
    }

    /// The arguments of `ctr run` with `options` for the container `name` that runs `command`.
    pub(crate) fn run(&self, name: &str, options: &[&str], command: &[&str]) -> Result<Vec<String>> {
        let mut args: Vec<String> = vec!["run".into(), "--cgroup".into(), self.containerd.scope.cgroup(name)];
        let runtime = match self.via {
            Via::RuncShim => "io.containerd.runc.v2",
            Via::OurShim | Via::OurShimNewest => "io.containerd.corten.v2",
        };
        args.extend(["--runtime".into(), runtime.into()]);
        if self.via == Via::RuncShim {
            let path = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
            args.extend(["--runc-binary".into(), path(binary("corten")?)]);
            args.extend(["--runc-root".into(), path(self.containerd.runtime_root())]);
        }
        args.extend(options.iter().map(|word| (*word).to_owned()));
        args.extend([self.image.clone(), self.id(name)]);
        args.extend(command.iter().map(|word| (*word).to_owned()));
        Ok(args)
    }

    /// Starts a container in the background whose output goes to the file `NAME.log`, and yields its id.
    pub(crate) fn start(&self, name: &str, options: &[&str], command: &[&str]) -> Result<String> {
        let log = format!("file://{}", self.log(name).display());
        let options = [&["--detach", "--log-uri", &log], options].concat();
        let args = self.run(name, &options, command)?;
        self.containerd.ctr_ok(&args.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(self.id(name))
    }

    /// Where the output of a started container goes.
    pub(crate) fn log(&self, name: &str) -> std::path::PathBuf {
        self.containerd.scope.path(&format!("{name}.log"))
    }

    /// Kills a container, waits for its end and removes it.
    pub(crate) fn remove(&self, id: &str) -> Result<()> {
        self.containerd.ctr_ok(&["tasks", "kill", "--signal", "SIGKILL", id])?;
        self.containerd.wait_status(id, "STOPPED")?;
        self.remove_stopped(id)
    }

    /// Removes a container whose task has ended. `ctr tasks delete` ends with the task's exit code.
    pub(crate) fn remove_stopped(&self, id: &str) -> Result<()> {
        self.containerd.ctr(&["tasks", "delete", id])?;
        self.containerd.ctr_ok(&["containers", "delete", id]).map(drop)
    }
}

pub(crate) fn on(via: Via, name: &str, test: fn(&mut T<'_, '_>) -> Result<()>) -> Result<()> {
    let flavour = if via == Via::OurShimNewest { Flavour::Given } else { Flavour::Debian };
    Containerd::test(flavour, name, |containerd| {
        let image = containerd.busybox()?;
        test(&mut T { containerd, via, image })
    })
}

/// Makes a `#[test]` for each way out of each function `fn(&mut T) -> Result<()>`.
#[macro_export]
macro_rules! each_way {
    ($($name:ident),* $(,)?) => {
        $crate::each_way!(@one runc_shim RuncShim $($name)*);
        $crate::each_way!(@one our_shim OurShim $($name)*);
        $crate::each_way!(@one newest OurShimNewest $($name)*);
    };
    (@one $module:ident $via:ident $($name:ident)*) => {
        mod $module {
            $(
                #[test]
                fn $name() -> anyhow::Result<()> {
                    $crate::on($crate::Via::$via, stringify!($name), super::$name)
                }
            )*
        }
    };
}
