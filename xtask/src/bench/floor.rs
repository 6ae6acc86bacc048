//! The floor program: the least work that a runtime must do here for the bundle, without JSON, state or errors.
//!
//! It lies beside the checkout (shared/bench) and not in it; where it isn't, or can't do what it does (it knows one layout of
//! cgroups), `run` is compared with the peers alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use integration_support::{Bundle, Scope};

use crate::run::root;

/// The program, built, and what it is run with.
pub(super) struct Floor {
    binary: PathBuf,
    rootfs: PathBuf,
    files: PathBuf,
    name: String,
}

impl Floor {
    /// Builds it, and tries it once.
    pub(super) fn new(scope: &Scope, bundle: &Bundle, files: &Path) -> Result<Self> {
        let sources =
            root().ancestors().map(|dir| dir.join("shared/bench")).find(|dir| dir.join("floor.c").is_file());
        let sources = sources.context("shared/bench/floor.c isn't beside the checkout")?;
        let dir = scope.make_dir("floor")?;
        quietly(Command::new("python3").arg(sources.join("gen_bpf.py")).arg(&dir))?;
        let generator = dir.join("gen_bpf");
        quietly(
            Command::new("gcc")
                .args(["-O1", "-DOPT=2", "-o"])
                .arg(&generator)
                .arg(dir.join("gen_bpf.c"))
                .arg("-lseccomp"),
        )?;
        let filter = quietly(&mut Command::new(&generator))?;
        std::fs::write(dir.join("bpf.h"), filter).context("write bpf.h")?;
        let binary = dir.join("floor");
        let mut compiler = Command::new("gcc");
        compiler.args(["-O2", "-static", "-I"]).arg(&dir).arg("-o").arg(&binary).arg(sources.join("floor.c"));
        quietly(&mut compiler)?;
        let floor =
            Self { binary, rootfs: bundle.rootfs(), files: files.to_owned(), name: scope.id("floor") };
        quietly(&mut floor.command())?;
        Ok(floor)
    }

    /// One run.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg(&self.rootfs).arg(&self.files).arg(&self.name).arg("/bin/true");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

impl Drop for Floor {
    /// It leaves the parents of its cgroups.
    fn drop(&mut self) {
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            std::fs::remove_dir(hierarchy.path().join("lab")).ok(); // because another one may be using it
        }
    }
}

fn quietly(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("can't start {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}: {}", output.status, said.trim());
    }
    Ok(output.stdout)
}
