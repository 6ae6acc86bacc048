//! Making the directories, and refusing those that can't take a new container.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use oci_spec::runtime::LinuxResources;

use crate::{Cgroup, Controllers, Dir, Error, Layout, Result, Unit, file, limits};

impl Cgroup {
    /// Makes the cgroup in every hierarchy, with parents, and sets its limits and device rules.
    /// `path` (`linux.cgroupsPath`) is absolute, from the root of each hierarchy.
    ///
    /// An existing cgroup is used if it is empty and not frozen. Without a list of devices (`None`) there are no device
    /// rules; with an empty one the devices that every container has are allowed.
    ///
    /// # Errors
    /// Any; the directories made (parents excepted) are then removed again.
    pub fn create(path: impl AsRef<Path>, resources: &LinuxResources) -> Result<Self> {
        let cgroup = Self::locate(path)?;
        // Only what we make is taken back: what was there belongs to someone, maybe to a running container.
        let mut made = Vec::new();
        cgroup.make(resources, &mut made).inspect_err(|_| {
            let made = Self { path: cgroup.path.clone(), dirs: made, unit: None };
            made.remove().ok(); // The first error is the one to report.
        })?;
        Ok(cgroup)
    }

    /// Has systemd make the cgroup, with the process `pid` in it, which keeps it alive until it has others (0 for a
    /// unit that [needs no process](Unit::needs_process)); then sets what systemd can't express.
    ///
    /// # Errors
    /// Any; the unit is then stopped again.
    pub fn create_unit(unit: &Unit, resources: &LinuxResources, pid: i32) -> Result<Self> {
        let cgroup = unit.start(pid, resources)?;
        let finish = || {
            for dir in &cgroup.dirs {
                make_with_parents(dir, &cgroup.root_of(dir))?;
                cgroup.prepare(dir, resources)?;
            }
            cgroup.set_limits(resources)?;
            cgroup.set_devices(resources)
        };
        finish().inspect_err(|_| {
            cgroup.kill().ok(); // The first error is the one to report.
            cgroup.remove().ok();
        })?;
        Ok(cgroup)
    }

    /// The cgroup at `path`, whether or not it exists.
    ///
    /// # Errors
    /// [`Error::Path`], [`Error::NotMounted`].
    pub fn locate(path: impl AsRef<Path>) -> Result<Self> {
        Self::in_layout(&Layout::detect()?, path.as_ref())
    }

    /// The cgroup at `path`, which must exist.
    ///
    /// # Errors
    /// [`Error::Path`], [`Error::NotMounted`], [`Error::Io`] if there is no such cgroup.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let cgroup = Self::locate(path)?;
        fs::metadata(cgroup.members()).map_err(Error::io("open", cgroup.members()))?;
        Ok(cgroup)
    }

    pub(crate) fn in_layout(layout: &Layout, path: &Path) -> Result<Self> {
        let mut components = path.components();
        let absolute = components.next() == Some(Component::RootDir);
        let below = components.as_path();
        if !absolute || below.as_os_str().is_empty() || components.any(|c| !matches!(c, Component::Normal(_)))
        {
            return Err(Error::Path { path: path.to_owned() });
        }
        let dir = |hierarchy: &crate::layout::Hierarchy| Dir {
            path: hierarchy.mount.join(below),
            controllers: hierarchy.controllers,
            v2: hierarchy.v2,
        };
        Ok(Self {
            path: Path::new("/").join(below),
            dirs: layout.hierarchies.iter().map(dir).collect(),
            unit: None,
        })
    }

    fn make(&self, resources: &LinuxResources, made: &mut Vec<Dir>) -> Result<()> {
        for dir in &self.dirs {
            if make_with_parents(dir, &self.root_of(dir))? {
                made.push(dir.clone());
            } else {
                refuse_busy(dir)?;
            }
            self.prepare(dir, resources)?;
        }
        self.set_limits(resources)?;
        self.set_devices(resources)
    }

    /// What a new directory needs before a process can be in it.
    fn prepare(&self, dir: &Dir, resources: &LinuxResources) -> Result<()> {
        if dir.v2 {
            if self.is_unified() {
                join_threaded_domain(dir, resources)?;
            }
            // On a hybrid machine only what is asked for: the others are in use on v1 or unwanted.
            let wanted =
                if self.is_unified() { Controllers::all() } else { limits::hybrid_controllers(resources) };
            enable(dir, &self.root_of(dir), wanted)?;
        } else if dir.controllers.contains(Controllers::CPUSET) {
            let cpu = resources.cpu().as_ref();
            let given = |value: Option<&Option<String>>| {
                value.and_then(|v| v.as_deref()).is_some_and(|v| !v.is_empty())
            };
            let skip = (given(cpu.map(|cpu| cpu.cpus())), given(cpu.map(|cpu| cpu.mems())));
            inherit_cpuset(&dir.path, skip)?;
        }
        Ok(())
    }

    /// Where the hierarchy of `dir` is mounted.
    fn root_of(&self, dir: &Dir) -> PathBuf {
        let depth = self.path.components().count() - 1;
        dir.path.ancestors().nth(depth).unwrap_or(Path::new("/")).to_owned()
    }

    /// Gives the cgroup to the user of a container with a cgroup namespace of its own, who may then divide it further;
    /// the limits stay ours. Only where there is nothing but v2: v1 isn't made for that.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn delegate(&self, uid: u32) -> Result<()> {
        let Some(dir) = self.v2().filter(|_| self.is_unified()) else { return Ok(()) };
        let names = file::read_if_there(Path::new("/sys/kernel/cgroup/delegate"))?
            .unwrap_or_else(|| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads".to_owned());
        std::os::unix::fs::chown(dir, Some(uid), None).map_err(Error::io("give away", dir))?;
        for path in names.lines().map(|name| dir.join(name)) {
            match std::os::unix::fs::chown(&path, Some(uid), None) {
                Err(error) if !file::is_gone(&error) => return Err(Error::io("give away", path)(error)),
                _ => {} // Not every controller's file is in every cgroup.
            }
        }
        Ok(())
    }

    fn set_limits(&self, resources: &LinuxResources) -> Result<()> {
        let writes =
            if self.is_unified() { limits::v2::writes(resources)? } else { limits::v1::writes(resources)? };
        self.apply(&writes)?;
        self.set_hugetlb(resources)
    }
}

/// Below a threaded cgroup there can only be threaded ones (cgroups(7), "Thread mode"), with controllers that know
/// threads.
fn join_threaded_domain(dir: &Dir, resources: &LinuxResources) -> Result<()> {
    let path = dir.path.join("cgroup.type");
    let kind = file::read_if_there(&path)?.unwrap_or_default();
    if !matches!(kind.trim(), "domain invalid" | "threaded") {
        return Ok(());
    }
    for (given, limit) in [
        (resources.memory().is_some(), "memory"),
        (resources.block_io().is_some(), "blockIO"),
        (resources.hugepage_limits().as_ref().is_some_and(|limits| !limits.is_empty()), "hugepageLimits"),
    ] {
        if given {
            let reason = format!("cgroup {} is threaded, which this controller can't be", dir.path.display());
            return Err(Error::Limit { limit: format!("linux.resources.{limit}"), reason });
        }
    }
    if kind.trim() == "threaded" { Ok(()) } else { file::write(&path, "threaded") }
}

/// mkdir -p; false if the last directory existed. The usual case costs one system call.
fn make_with_parents(dir: &Dir, root: &Path) -> Result<bool> {
    match fs::create_dir(&dir.path) {
        Ok(()) => return Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("create", &dir.path)(error)),
    }
    let parents: Vec<_> = dir.path.ancestors().skip(1).take_while(|parent| *parent != root).collect();
    for parent in parents.into_iter().rev() {
        match fs::create_dir(parent) {
            Ok(()) if dir.controllers.contains(Controllers::CPUSET) && !dir.v2 => {
                inherit_cpuset(parent, (false, false))?;
            }
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io("create", parent)(error)),
        }
    }
    match fs::create_dir(&dir.path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::io("create", &dir.path)(error)),
    }
}

/// A v1 cpuset begins empty, and nothing can run in an empty one: takes over the parent's.
fn inherit_cpuset(path: &Path, (skip_cpus, skip_mems): (bool, bool)) -> Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    for (name, skip) in [("cpuset.cpus", skip_cpus), ("cpuset.mems", skip_mems)] {
        if skip {
            continue;
        }
        let value = cpuset_of(parent, name)?;
        file::write(&path.join(name), &value)?;
    }
    Ok(())
}

/// The CPUs or memory nodes of a cgroup, which takes them over from above if whoever made it didn't care.
fn cpuset_of(path: &Path, name: &str) -> Result<String> {
    let own = path.join(name);
    let value = file::read(&own)?.trim().to_owned();
    match path.parent() {
        Some(parent) if value.is_empty() => {
            let value = cpuset_of(parent, name)?;
            file::write(&own, &value)?;
            Ok(value)
        }
        _ => Ok(value),
    }
}

/// A container must not be put where other processes are, nor where it can't run (it would hang).
fn refuse_busy(dir: &Dir) -> Result<()> {
    let path = dir.path.join("cgroup.procs");
    let count = file::read(&path)?.lines().count();
    if count > 0 {
        return Err(Error::NotEmpty { path: dir.path.clone(), count });
    }
    if crate::freeze::is_frozen(dir)? {
        return Err(Error::Frozen { path: dir.path.clone() });
    }
    Ok(())
}

/// Makes controllers available in a v2 cgroup: each ancestor has to hand them down in cgroup.subtree_control.
fn enable(dir: &Dir, root: &Path, wanted: Controllers) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let available = file::read(&root.join("cgroup.controllers"))?;
    let ancestors: Vec<_> = dir.path.ancestors().skip(1).take_while(|path| path.starts_with(root)).collect();
    for ancestor in ancestors.into_iter().rev() {
        let control = ancestor.join("cgroup.subtree_control");
        let enabled = file::read(&control)?;
        let missing = |name: &&str| {
            !enabled.split_whitespace().any(|word| word == *name)
                && wanted.intersects(Controllers::parse(name))
        };
        let missing: Vec<_> = available.split_whitespace().filter(missing).collect();
        if missing.is_empty() {
            continue;
        }
        let all: Vec<_> = missing.iter().map(|name| format!("+{name}")).collect();
        if file::try_write(&control, &all.join(" ")).is_err() {
            // All or nothing: one that can't be enabled must not cost the others. Limits that need it will say so.
            for one in &all {
                file::try_write(&control, one).ok();
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Hierarchy;

    /// Directories that somebody made on the way with mkdir alone.
    #[test]
    fn empty_cpusets_are_filled_from_above() {
        let top = tempfile::tempdir().expect("a directory");
        let levels = ["", "a", "a/b", "a/b/c"].map(|level| top.path().join(level));
        for (level, value) in levels.iter().zip(["0-1\n", "\n", "\n", "\n"]) {
            fs::create_dir_all(level).expect("a directory");
            fs::write(level.join("cpuset.cpus"), value).expect("a file");
            fs::write(level.join("cpuset.mems"), "0\n").expect("a file");
        }
        inherit_cpuset(&levels[3], (false, false)).expect("filled");
        for level in &levels {
            assert_eq!(fs::read_to_string(level.join("cpuset.cpus")).expect("a file").trim(), "0-1");
        }
    }

    #[test]
    fn paths() {
        let hierarchy =
            Hierarchy { mount: "/sys/fs/cgroup".into(), controllers: Controllers::all(), v2: true };
        let layout = Layout { hierarchies: vec![hierarchy] };
        let cgroup = Cgroup::in_layout(&layout, Path::new("/a//b/./c/")).expect("fine path");
        assert_eq!(cgroup.path(), Path::new("/a/b/c"));
        assert_eq!(cgroup.members(), Path::new("/sys/fs/cgroup/a/b/c"));
        assert_eq!(cgroup.root_of(&cgroup.dirs[0]), Path::new("/sys/fs/cgroup"));
        assert!(cgroup.is_unified());
        for bad in ["", "a", "/", "/..", "/a/../b", "../x", "system.slice:x:y"] {
            assert!(matches!(Cgroup::in_layout(&layout, Path::new(bad)), Err(Error::Path { .. })), "{bad}");
        }
    }
}
