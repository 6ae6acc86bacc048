//! A container's cgroup: where it is, who is in it, what it uses, whether the kernel has killed in it.
//!
//! Not through corten-cgroups, which is for whoever makes cgroups: its figures are what both versions have in common,
//! while containerd's two messages have each version's own, and a shim that only reads is smaller without the rest.

mod oom;
mod v1;
mod v2;

use std::path::{Path, PathBuf};
use std::time::Duration;

use corten_task_api::services;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prost_types::Any;

/// The last pause before it is given up to kill; all of them together are less than twice as long.
const PATIENCE: Duration = Duration::from_secs(1);
const MOUNT: &str = "/sys/fs/cgroup";

/// Where a container's processes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cgroup {
    /// The one hierarchy of version 2.
    Unified(PathBuf),
    /// The path within the hierarchies of version 1, which is the same in all of them.
    Legacy(String),
}

impl Cgroup {
    /// The cgroup of a process. None when it's the root's or our own: then the container has none of its own.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let theirs = Self::read(&pid.to_string())?;
        (Some(&theirs) != Self::read("self").as_ref()).then_some(theirs)
    }

    fn read(pid: &str) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        Self::parse(&text, Path::new(MOUNT).join("cgroup.controllers").exists())
    }

    pub(crate) fn parse(text: &str, unified: bool) -> Option<Self> {
        let mut lines = text.lines().filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            rest.split_once(':')
        });
        let wanted = |controllers: &str| match unified {
            true => controllers.is_empty(),
            false => controllers.split(',').any(|c| c == "memory"),
        };
        let (_, path) = lines.find(|(controllers, path)| wanted(controllers) && *path != "/")?;
        Some(match unified {
            true => Self::Unified(Path::new(MOUNT).join(path.trim_start_matches('/'))),
            false => Self::Legacy(path.to_owned()),
        })
    }

    /// The cgroup that a pod's configuration names: a path, or a slice as systemd names them (`a-b.slice` is in
    /// `a.slice`).
    pub(crate) fn named(parent: &str) -> Self {
        let path = match parent.strip_suffix(".slice").filter(|name| !name.contains('/')) {
            None => format!("/{}", parent.trim_matches('/')),
            Some(name) => {
                let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
                ends.map(|end| format!("/{}.slice", &name[..end])).collect()
            }
        };
        match Path::new(MOUNT).join("cgroup.controllers").exists() {
            true => Self::Unified(Path::new(MOUNT).join(path.trim_start_matches('/'))),
            false => Self::Legacy(path),
        }
    }

    pub(crate) fn exists(&self) -> bool {
        self.dir("memory").exists()
    }

    /// Puts a process into it, in every hierarchy that has it.
    pub(crate) fn admit(&self, pid: u32) -> std::io::Result<()> {
        let dirs = match self {
            Self::Unified(dir) => vec![dir.clone()],
            Self::Legacy(path) => {
                let entries = std::fs::read_dir(MOUNT)?.flatten();
                // Links are other names of the same hierarchies.
                let hierarchies = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
                hierarchies.map(|e| e.path().join(path.trim_start_matches('/'))).collect()
            }
        };
        let dirs: Vec<_> = dirs.into_iter().filter(|dir| dir.join("cgroup.procs").exists()).collect();
        if dirs.is_empty() {
            return Err(std::io::ErrorKind::NotFound.into());
        }
        dirs.iter().try_for_each(|dir| std::fs::write(dir.join("cgroup.procs"), pid.to_string()))
    }

    fn dir(&self, controller: &str) -> PathBuf {
        match self {
            Self::Unified(dir) => dir.clone(),
            Self::Legacy(path) => Path::new(MOUNT).join(controller).join(path.trim_start_matches('/')),
        }
    }

    /// How often the kernel has killed a process here for want of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        let file = match self {
            Self::Unified(dir) => dir.join("memory.events"),
            Self::Legacy(_) => self.dir("memory").join("memory.oom_control"),
        };
        Keyed::read(&file).get("oom_kill")
    }

    /// All processes, of cgroups below it too.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        collect(&self.dir("memory"), &mut pids);
        pids
    }

    /// Kills all that is left here, until nothing is: who forks faster than we look isn't in a list. What is in the kernel's hands
    /// (frozen, in state D) isn't waited for.
    pub(crate) async fn kill_all(&self) {
        let mut pause = Duration::from_millis(1);
        loop {
            let left = self.pids();
            if left.is_empty() || pause > PATIENCE {
                return;
            }
            // Where there is this it misses nobody.
            let _ = self.version_2().map(|dir| std::fs::write(dir.join("cgroup.kill"), "1"));
            kill_each(&left);
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// Its directory in the version 2 hierarchy, be it without controllers; None if there is none.
    pub(crate) fn version_2(&self) -> Option<PathBuf> {
        let dir = match self {
            Self::Unified(dir) => dir.clone(),
            Self::Legacy(path) => Path::new(MOUNT).join("unified").join(path.trim_start_matches('/')),
        };
        dir.join("cgroup.procs").exists().then_some(dir)
    }

    /// Whether it stands still, whoever has frozen it.
    pub(crate) fn is_frozen(&self) -> bool {
        let (file, moving) = match self {
            Self::Unified(dir) => (dir.join("cgroup.freeze"), "0"),
            Self::Legacy(_) => (self.dir("freezer").join("freezer.state"), "THAWED"),
        };
        std::fs::read_to_string(file).is_ok_and(|state| state.trim() != moving)
    }

    /// What Task.Stats answers.
    pub(crate) fn metrics(&self) -> Any {
        match self {
            Self::Unified(dir) => services::any("io.containerd.cgroups.v2.Metrics", &v2::metrics(dir)),
            Self::Legacy(_) => {
                services::any("io.containerd.cgroups.v1.Metrics", &v1::metrics(|name| self.dir(name)))
            }
        }
    }
}

/// A file of lines "key value".
struct Keyed(String);

impl Keyed {
    /// Empty when there is none: the controller may be off.
    fn read(file: &Path) -> Self {
        Self(text(file))
    }

    fn get(&self, key: &str) -> u64 {
        let value = self.0.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        value.and_then(|v| v.trim().parse().ok()).unwrap_or(0)
    }
}

fn text(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

/// The sizes of huge pages for which a directory has files `hugetlb.<size><suffix>`.
fn page_sizes(dir: &Path, suffix: &str) -> Vec<String> {
    let size = |name: String| {
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?;
        (!size.contains('.')).then(|| size.to_owned())
    };
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut sizes: Vec<_> =
        names.filter_map(|entry| entry.file_name().into_string().ok()).filter_map(size).collect();
    sizes.sort_unstable();
    sizes
}

/// `mlx4_0 hca_handle=2 hca_object=max`: device, handles, objects.
fn rdma(text: &str) -> Vec<(String, u32, u32)> {
    let count = |word: Option<&str>| match word.and_then(|word| word.split_once('=')) {
        Some((_, "max")) => u32::MAX,
        Some((_, number)) => number.parse().unwrap_or(0),
        None => 0,
    };
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), count(words.next()), count(words.next())))
    };
    text.lines().filter_map(line).collect()
}

/// 0 when there is none, u64::MAX for "max".
fn number(file: &Path) -> u64 {
    match text(file).trim() {
        "max" => u64::MAX,
        text => text.parse().unwrap_or(0),
    }
}

/// Kills all in this directory of a hierarchy and below.
pub(crate) fn kill_below(dir: &Path) {
    let mut pids = Vec::new();
    collect(dir, &mut pids);
    kill_each(&pids);
}

fn kill_each(pids: &[u32]) {
    for pid in pids {
        let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL); // it may have ended meanwhile
    }
}

fn collect(dir: &Path, pids: &mut Vec<u32>) {
    let procs = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    pids.extend(procs.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0));
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        collect(&entry.path(), pids);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_in_all_layouts() {
        let hybrid = "12:memory:/pod/x\n11:cpu,cpuacct:/pod/x\n0::/init\n";
        assert_eq!(Cgroup::parse(hybrid, false), Some(Cgroup::Legacy("/pod/x".into())));
        assert_eq!(Cgroup::parse("0::/a/b\n", true), Some(Cgroup::Unified("/sys/fs/cgroup/a/b".into())));
        assert_eq!(Cgroup::parse("0::/\n", true), None);
        assert_eq!(Cgroup::parse("4:memory:/\n", false), None);
    }

    #[test]
    fn slices_are_nested() {
        let path = |parent: &str| match Cgroup::named(parent) {
            Cgroup::Legacy(path) => path,
            Cgroup::Unified(dir) => dir.strip_prefix(MOUNT).map(|d| format!("/{}", d.display())).unwrap(),
        };
        assert_eq!(
            path("kubepods-burstable-pod_1.slice"),
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod_1.slice"
        );
        assert_eq!(path("/kubepods/pod1"), "/kubepods/pod1");
        assert_eq!(path("a.slice/b.slice"), "/a.slice/b.slice");
    }

    #[test]
    fn keys_are_not_prefixes() {
        let stat = Keyed("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n".into());
        assert_eq!(stat.get("oom_kill"), 3);
    }
}
