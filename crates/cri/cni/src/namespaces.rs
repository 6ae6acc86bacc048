//! Namespaces that live without a process: made by a thread that ends, kept by bind mounts (namespaces(7)).

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

use crate::{Error, Result};

/// Which namespaces a pod has for itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kinds {
    /// Network.
    pub net: bool,
    /// System V IPC and POSIX message queues.
    pub ipc: bool,
    /// Host name.
    pub uts: bool,
}

/// Name of the pin, and the namespace's flag.
const ALL: [(&str, CloneFlags); 3] =
    [("net", CloneFlags::CLONE_NEWNET), ("ipc", CloneFlags::CLONE_NEWIPC), ("uts", CloneFlags::CLONE_NEWUTS)];

impl Kinds {
    /// All of them.
    pub const ALL: Self = Self { net: true, ipc: true, uts: true };

    fn has(self, name: &str) -> bool {
        match name {
            "net" => self.net,
            "ipc" => self.ipc,
            _ => self.uts,
        }
    }

    fn chosen(self) -> impl Iterator<Item = (&'static str, CloneFlags)> {
        ALL.into_iter().filter(move |(name, _)| self.has(name))
    }
}

/// The pinned namespaces of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodNamespaces {
    dir: PathBuf,
    kinds: Kinds,
}

impl PodNamespaces {
    /// Makes the namespaces and pins them at `dir`/{net,ipc,uts}; in them sets the host name (with `kinds.uts`,
    /// unless empty), brings the loopback interface up (with `kinds.net`) and sets the sysctls (`net.ipv4...` or
    /// `net/ipv4/...`). Takes the place of what an earlier attempt has left in `dir`. Blocks.
    ///
    /// # Errors
    /// [`Error::Sysctl`] for one that doesn't belong to a namespace of `kinds`; [`Error::Namespaces`] names the
    /// step. Nothing is left then.
    pub fn create(
        dir: &Path,
        kinds: Kinds,
        hostname: &str,
        sysctls: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let sysctls = sysctls
            .iter()
            .map(|(name, value)| Ok((sysctl_path(name, kinds)?, value.as_str())))
            .collect::<Result<Vec<_>>>()?;
        Self::remove(dir)?;
        let made = pins(dir, kinds).and_then(|()| {
            // unshare(2) is about the calling thread: this one ends, the namespaces stay behind in the pins.
            std::thread::scope(|scope| {
                let thread = std::thread::Builder::new()
                    .name("namespaces".into())
                    .spawn_scoped(scope, || populate(dir, kinds, hostname, &sysctls));
                match thread {
                    Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                    Err(source) => Err(failed("start a thread", dir)(source)),
                }
            })
        });
        match made {
            Ok(()) => Ok(Self { dir: dir.to_owned(), kinds }),
            Err(error) => {
                if let Err(undo) = Self::remove(dir) {
                    tracing::warn!(error = %undo, "pins of a failed pod could not be removed");
                }
                Err(error)
            }
        }
    }

    /// Path of the network namespace, if the pod has one.
    #[must_use]
    pub fn net(&self) -> Option<PathBuf> {
        self.kinds.net.then(|| self.dir.join("net"))
    }

    /// Path of the IPC namespace, if the pod has one.
    #[must_use]
    pub fn ipc(&self) -> Option<PathBuf> {
        self.kinds.ipc.then(|| self.dir.join("ipc"))
    }

    /// Path of the UTS namespace, if the pod has one.
    #[must_use]
    pub fn uts(&self) -> Option<PathBuf> {
        self.kinds.uts.then(|| self.dir.join("uts"))
    }

    /// Removes the pins and `dir`; the namespaces end with their last process. Does nothing if they are gone.
    ///
    /// # Errors
    /// [`Error::Namespaces`]; a retry goes on where this one stopped.
    pub fn remove(dir: &Path) -> Result<()> {
        for (name, _) in ALL {
            unpin(&dir.join(name)).map_err(failed(&format!("unpin {name}"), dir))?;
        }
        match fs::remove_dir(dir) {
            // Others keep things there too.
            Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
                Err(failed("remove the directory", dir)(e))
            }
            _ => Ok(()),
        }
    }
}

/// Makes the files to mount on.
fn pins(dir: &Path, kinds: Kinds) -> Result<()> {
    fs::create_dir_all(dir).map_err(failed("make the directory", dir))?;
    for (name, _) in kinds.chosen() {
        let mut options = OpenOptions::new();
        let opened = options.write(true).create(true).truncate(false).mode(0o444).open(dir.join(name));
        opened.map_err(failed(&format!("make the pin {name}"), dir))?;
    }
    Ok(())
}

/// Runs on the thread that takes the new namespaces.
fn populate(dir: &Path, kinds: Kinds, hostname: &str, sysctls: &[(PathBuf, &str)]) -> Result<()> {
    let step = |operation: &str| failed(operation, dir);
    let flags = kinds.chosen().fold(CloneFlags::empty(), |flags, (_, flag)| flags | flag);
    if flags.is_empty() {
        return Ok(());
    }
    unshare(flags).map_err(|e| step("unshare")(e.into()))?;
    if kinds.uts && !hostname.is_empty() {
        nix::unistd::sethostname(hostname)
            .map_err(|e| step(&format!("set host name {hostname:?}"))(e.into()))?;
    }
    if kinds.net {
        corten_sys::net::loopback_up().map_err(step("bring up the loopback interface"))?;
    }
    for (path, value) in sysctls {
        fs::write(path, value).map_err(step(&format!("write {value:?} to {}", path.display())))?;
    }
    for (name, _) in kinds.chosen() {
        // The thread's own: /proc/self is the process, whose main thread stays where it was.
        let source = Path::new("/proc/thread-self/ns").join(name);
        mount(Some(&source), &dir.join(name), None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(|e| step(&format!("pin {name}"))(e.into()))?;
    }
    Ok(())
}

/// Takes down all that is mounted on a pin, and the pin.
fn unpin(pin: &Path) -> io::Result<()> {
    loop {
        match umount2(pin, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Not mounted (any more), or not there.
            Err(Errno::EINVAL) => break,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
    match fs::remove_file(pin) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// The file of a sysctl, if the pod has the namespace that it belongs to.
fn sysctl_path(name: &str, kinds: Kinds) -> Result<PathBuf> {
    // sysctl(8): the first separator decides; in the dotted form a slash stands for a dot in a name (eth0.1).
    let dotted = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'.');
    let path: String = if dotted {
        name.chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect()
    } else {
        name.to_owned()
    };
    let refuse = |problem| Err(Error::Sysctl { name: name.to_owned(), problem });
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return refuse("is not a name");
    }
    let ipc = ["kernel/shm", "kernel/msg", "fs/mqueue/"];
    let owned = if path.starts_with("net/") {
        kinds.net
    } else if ipc.iter().any(|prefix| path.starts_with(prefix)) || path == "kernel/sem" {
        kinds.ipc
    } else if matches!(path.as_str(), "kernel/hostname" | "kernel/domainname") {
        kinds.uts
    } else {
        return refuse("belongs to the whole machine, a pod can't have its own");
    };
    if !owned {
        return refuse("needs a namespace of the pod's own, but the pod shares the host's");
    }
    Ok(Path::new("/proc/sys").join(path))
}

fn failed(operation: &str, dir: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let (operation, dir) = (operation.to_owned(), dir.to_owned());
    move |source| Error::Namespaces { operation, dir, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctls_stay_within_the_pods_namespaces() {
        let path = |name: &str| sysctl_path(name, Kinds::ALL).map(|p| p.display().to_string());
        assert_eq!(path("net.ipv4.ip_forward").expect("net"), "/proc/sys/net/ipv4/ip_forward");
        assert_eq!(path("net/ipv4/ip_forward").expect("net"), "/proc/sys/net/ipv4/ip_forward");
        let vlan = path("net.ipv4.conf.eth0/1.rp_filter").expect("dot in a name");
        assert_eq!(vlan, "/proc/sys/net/ipv4/conf/eth0.1/rp_filter");
        assert_eq!(path("kernel.shmmax").expect("ipc"), "/proc/sys/kernel/shmmax");
        for wrong in
            ["vm.swappiness", "kernel.panic", "net.//.kernel.panic", "net/../kernel/panic", "net..x", ""]
        {
            assert!(matches!(path(wrong), Err(Error::Sysctl { .. })), "{wrong}");
        }
        let host = Kinds { net: false, ..Kinds::ALL };
        let error = sysctl_path("net.ipv4.ip_forward", host).expect_err("host network").to_string();
        assert!(error.contains("net.ipv4.ip_forward") && error.contains("shares the host's"), "{error}");
    }
}
