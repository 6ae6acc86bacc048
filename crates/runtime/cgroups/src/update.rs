//! Writing limits into the files, at creation and later.

use std::{io, path::Path};

use nix::libc::{EBUSY, EINVAL};
use oci_spec::runtime::LinuxResources;

use crate::{
    Cgroup, Controllers, Error, Result, file,
    limits::{self, Step, Write},
};

impl Cgroup {
    /// Changes the limits that are given; others stay. Device rules, if given, take the place of all before.
    ///
    /// # Errors
    /// [`Error::Write`], [`Error::NoController`], [`Error::Limit`], [`Error::BelowUsage`], [`Error::Systemd`], ...
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        self.check_usage(resources)?;
        if let Some(unit) = &self.unit {
            unit.update(resources, self.is_unified())?;
        }
        self.update_devices(resources)?;
        let writes =
            if self.is_unified() { limits::v2::writes(resources)? } else { limits::v1::writes(resources)? };
        self.apply(&writes)?;
        self.set_hugetlb(resources)
    }

    /// Huge pages on a machine that isn't v2 only: their controller may be on either half.
    pub(crate) fn set_hugetlb(&self, resources: &LinuxResources) -> Result<()> {
        if self.is_unified() {
            return Ok(()); // Among the others.
        }
        let on_v1 = self.v1(Controllers::HUGETLB).is_some();
        self.apply(&if on_v1 { limits::v1::hugetlb(resources)? } else { limits::v2::hugetlb(resources)? })
    }

    pub(crate) fn apply(&self, steps: &[Step]) -> Result<()> {
        steps.iter().try_for_each(|step| self.step(step))
    }

    fn step(&self, step: &Step) -> Result<()> {
        match step {
            Step::Write(write) => self.write(write),
            Step::IfThere(write) => match self.try_write(write) {
                Err(error) if file::is_gone(&error) => Ok(()),
                other => other.map_err(|source| self.explain(write, source)),
            },
            Step::FirstThere(writes) => self.first_there(writes),
            Step::EitherOrder(first, second) => match self.try_write(first) {
                Ok(()) => self.write(second),
                Err(error) if matches!(error.raw_os_error(), Some(EINVAL | EBUSY)) => {
                    self.write(second)?;
                    self.write(first)
                }
                Err(source) => Err(self.explain(first, source)),
            },
            Step::SecondWord(write) => {
                let path = self.directory_of(write).map(|dir| dir.join(&*write.file));
                let path = path.ok_or_else(|| self.explain(write, not_there()))?;
                let old = file::read(&path)?;
                let first = old.split_whitespace().next().unwrap_or("max");
                file::write(&path, &format!("{first} {}", write.value))
            }
        }
    }

    fn first_there(&self, writes: &[Write]) -> Result<()> {
        let Some((last, others)) = writes.split_last() else { return Ok(()) };
        for write in others {
            match self.try_write(write) {
                Err(error) if file::is_gone(&error) => {}
                other => return other.map_err(|source| self.explain(write, source)),
            }
        }
        self.write(last)
    }

    fn write(&self, write: &Write) -> Result<()> {
        self.try_write(write).map_err(|source| self.explain(write, source))
    }

    fn try_write(&self, write: &Write) -> io::Result<()> {
        let dir = self.directory_of(write).ok_or_else(not_there)?;
        file::try_write(&dir.join(&*write.file), &write.value)
    }

    fn directory_of(&self, write: &Write) -> Option<&Path> {
        self.v1(write.controller).or_else(|| self.v2())
    }

    /// A missing file means a missing controller, if the cgroup itself is there.
    fn explain(&self, write: &Write, source: io::Error) -> Error {
        let limit = || format!("linux.resources.{}", write.limit);
        let Some(dir) = self.directory_of(write) else {
            return Error::NoController { limit: limit(), controller: controller_name(write.controller) };
        };
        let on_v1 = self.v1(write.controller).is_some();
        if source.kind() == io::ErrorKind::NotFound && !on_v1 && dir.exists() && !write.controller.is_empty()
        {
            return Error::NoController { limit: limit(), controller: controller_name(write.controller) };
        }
        Error::Write { path: dir.join(&*write.file), value: write.value.clone(), source }
    }

    /// `checkBeforeUpdate`: v1's kernel refuses a limit below the usage, v2's kills.
    fn check_usage(&self, resources: &LinuxResources) -> Result<()> {
        let Some(memory) = resources.memory() else { return Ok(()) };
        let limit = memory.limit().and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0);
        let (Some(limit), Some(true), Some(dir)) = (limit, memory.check_before_update(), self.v2()) else {
            return Ok(());
        };
        let current = file::read_if_there(&dir.join("memory.current"))?;
        match current.as_deref().and_then(file::number) {
            Some(usage) if usage > limit => Err(Error::BelowUsage { limit, usage }),
            _ => Ok(()),
        }
    }
}

fn not_there() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn controller_name(controller: Controllers) -> &'static str {
    match controller {
        Controllers::CPU => "cpu",
        Controllers::CPUSET => "cpuset",
        Controllers::MEMORY => "memory",
        Controllers::IO => "io (blkio)",
        Controllers::PIDS => "pids",
        Controllers::HUGETLB => "hugetlb",
        Controllers::NET_CLS => "net_cls",
        Controllers::NET_PRIO => "net_prio",
        Controllers::RDMA => "rdma",
        Controllers::MISC => "misc",
        Controllers::DMEM => "dmem",
        _ => "of this file",
    }
}
