//! A small disk that can be made to stand still: who writes to it then is in state D, where no signal reaches him, as
//! on a network file system whose server has gone.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};

use crate::scope::Scope;

/// An ext4 of 8 MiB on a loop device, mounted; it goes when dropped.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
}

impl Disk {
    /// None, and the test counts as skipped, where there are no loop devices.
    ///
    /// # Errors
    /// When the scope can't hold it.
    pub fn new(scope: &Scope) -> Result<Option<Self>> {
        let (image, dir) = (scope.path("disk.img"), scope.make_dir("disk")?);
        File::create(&image)?.set_len(8 << 20)?;
        let works = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let made = works(Command::new("mkfs.ext4").arg("-q").arg(&image));
        if made && works(Command::new("mount").args(["-o", "loop"]).args([&image, &dir])) {
            return Ok(Some(Self { dir }));
        }
        crate::skip("no ext4 on a loop device here");
        Ok(None)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// From now on who writes to it waits.
    ///
    /// # Errors
    /// When it can't be frozen.
    pub fn freeze(&self) -> Result<()> {
        crate::run(Command::new("fsfreeze").arg("-f").arg(&self.dir))?
            .ok()
            .map(drop)
            .context("freeze the disk")
    }

    /// They go on.
    ///
    /// # Errors
    /// When it isn't frozen.
    pub fn thaw(&self) -> Result<()> {
        crate::run(Command::new("fsfreeze").arg("-u").arg(&self.dir))?.ok().map(drop).context("thaw the disk")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.thaw().ok(); // because it usually isn't frozen
        umount2(&self.dir, MntFlags::MNT_DETACH).ok(); // because the scope tells of what is left
    }
}
