//! Driving criu(8), which saves the processes of a container to files and brings them back.
//!
//! `session` talks to it (as runc does, `criu swrk` over a socket pair), `rpc` has the messages, `log` finds in its
//! log why it failed, `mounts` prepares a restore; here is what dump and restore have in common. criu knows nothing of containers: which mounts
//! and namespaces are not the container's own is told it for each.

mod log;
pub(crate) mod mounts;
pub(crate) mod rpc;
pub(crate) mod session;

use std::{
    collections::BTreeMap,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::{Path, PathBuf},
};

use corten_bundle::Bundle;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use oci_spec::runtime::LinuxNamespaceType;

use crate::{Error, Result, error::Doing};

/// What dump and restore have in common (criu(8) has the details).
#[derive(Debug, Clone, Default)]
pub struct CriuOptions {
    /// Where the images are.
    pub image_path: PathBuf,
    /// Where criu's log and other files go; with the images by default.
    pub work_path: Option<PathBuf>,
    /// TCP connections are saved, and restored.
    pub tcp_established: bool,
    /// TCP connections aren't saved, and are closed when their processes are restored.
    pub tcp_close: bool,
    /// UNIX sockets may be connected to outside.
    pub ext_unix_sk: bool,
    /// The container's session and terminal are its caller's.
    pub shell_job: bool,
    /// File locks are saved, and restored.
    pub file_locks: bool,
    /// Pages that are in a later image are removed from earlier ones.
    pub auto_dedup: bool,
    /// Memory is fetched when it's used, by userfaultfd.
    pub lazy_pages: bool,
    /// What criu does about cgroups.
    pub manage_cgroups: CgroupsMode,
}

/// What criu does about the cgroups of the processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CgroupsMode {
    /// criu's default, which is soft.
    #[default]
    Default,
    /// Restores those that it makes, leaves others as they are.
    Soft,
    /// Restores all.
    Full,
    /// Fails if there is one already.
    Strict,
    /// Nothing.
    Ignore,
}

impl CgroupsMode {
    /// criu's number.
    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Ignore => 0,
            Self::Soft => 3,
            Self::Full => 4,
            Self::Strict => 5,
            Self::Default => 6,
        }
    }
}

/// The annotation that names criu's configuration file for a container; empty means none.
const CONFIG_ANNOTATION: &str = "org.criu.config";
/// What is read else; that it isn't there is fine.
const CONFIG: &str = "/etc/criu/runc.conf";

/// criu's configuration file, which has the last word over all options.
pub(crate) fn config_file(annotations: &BTreeMap<String, String>) -> Option<String> {
    match annotations.get(CONFIG_ANNOTATION) {
        Some(path) => Some(path.clone()).filter(|path| !path.is_empty()),
        None => Some(CONFIG.to_owned()),
    }
}

/// The directories that criu works in, open.
pub(crate) struct Directories {
    images: OwnedFd,
    work: Option<OwnedFd>,
    /// Where the log is.
    log: PathBuf,
}

impl Directories {
    /// Opens them; makes those that are missing, except for the images of a restore.
    pub(crate) fn open(options: &CriuOptions, log: &str, make: bool) -> Result<Self> {
        let images = directory(&options.image_path, make)?;
        let work = options.work_path.as_deref().map(|path| directory(path, true)).transpose()?;
        Ok(Self { images, work, log: options.work_path.as_ref().unwrap_or(&options.image_path).join(log) })
    }

    /// The path of the log.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// The options that are the same for both ways.
    pub(crate) fn common(&self, options: &CriuOptions) -> rpc::Options {
        let log = self.log.file_name().map(|name| name.to_string_lossy().into_owned());
        rpc::Options {
            images_dir_fd: self.images.as_raw_fd(),
            work_dir_fd: self.work.as_ref().map(AsRawFd::as_raw_fd),
            log_level: Some(4),
            log_file: log,
            notify_scripts: Some(true),
            manage_cgroups: Some(true),
            manage_cgroups_mode: Some(options.manage_cgroups.number()),
            shell_job: Some(options.shell_job),
            tcp_established: Some(options.tcp_established),
            tcp_close: options.tcp_close.then_some(true),
            ext_unix_sk: Some(options.ext_unix_sk),
            file_locks: Some(options.file_locks),
            auto_dedup: Some(options.auto_dedup),
            lazy_pages: Some(options.lazy_pages),
            orphan_pts_master: Some(true),
            // Devices and addresses are the business of whoever made the network: as with create, by a hook.
            empty_ns: Some(nix::libc::CLONE_NEWNET.cast_unsigned()),
            ..rpc::Options::default()
        }
    }
}

fn directory(path: &Path, make: bool) -> Result<OwnedFd> {
    let doing = || format!("open {}", path.display());
    if make {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.doing(|| format!("make {}", path.display()))?;
    }
    let file = fs::File::open(path).doing(doing)?;
    match file.metadata().doing(doing)?.is_dir() {
        true => Ok(file.into()),
        false => Err(io::Error::from(io::ErrorKind::NotADirectory)).doing(doing),
    }
}

/// What of config.json criu has to be told: read when it's needed, rather than kept for every container.
pub(crate) struct Outside {
    /// Bind mounts: where in the container, and the source on the host.
    pub(crate) binds: Vec<(String, PathBuf)>,
    /// Masked paths.
    pub(crate) masked: Vec<String>,
    /// Namespaces with a path.
    pub(crate) joined: Vec<(LinuxNamespaceType, PathBuf)>,
}

impl Outside {
    /// Of a bundle whose rootfs is at `rootfs`.
    pub(crate) fn new(bundle: &Bundle, rootfs: &Path) -> Self {
        let linux = bundle.spec.linux().as_ref();
        let namespaces = linux.and_then(|linux| linux.namespaces().clone()).unwrap_or_default();
        let own_cgroups = namespaces.iter().any(|namespace| namespace.typ() == LinuxNamespaceType::Cgroup);
        let mut binds = Vec::new();
        for mount in bundle.spec.mounts().iter().flatten() {
            let (kind, target) = (mount.typ().as_deref().unwrap_or_default(), mount.destination());
            let options = mount.options().as_deref().unwrap_or_default();
            if options.iter().any(|option| option == "remount") {
                continue;
            }
            if kind == "bind" || options.iter().any(|option| option == "bind" || option == "rbind") {
                let source = bundle.path.join(mount.source().as_deref().unwrap_or(Path::new("")));
                binds.push((inside(rootfs, target), source));
            } else if kind == "cgroup" && !own_cgroups && !unified() {
                // Without a cgroup namespace each hierarchy is a bind mount of the host's.
                binds.extend(hierarchies(&inside(rootfs, target)));
            }
        }
        let masked = linux.and_then(|linux| linux.masked_paths().clone()).unwrap_or_default();
        let joined = |namespace: &oci_spec::runtime::LinuxNamespace| {
            let path = namespace.path().clone().filter(|path| !path.as_os_str().is_empty())?;
            Some((namespace.typ(), path))
        };
        Self { binds, masked, joined: namespaces.iter().filter_map(joined).collect() }
    }
}

/// Where a destination of config.json ends up: links of the image's are followed inside of it.
fn inside(rootfs: &Path, destination: &Path) -> String {
    let path = resolve(rootfs, destination).unwrap_or_else(|_| destination.to_owned());
    Path::new("/").join(path).display().to_string()
}

/// What `path` is inside `rootfs`, without links, relative to it.
fn resolve(rootfs: &Path, path: &Path) -> io::Result<PathBuf> {
    let root = fs::File::open(rootfs)?;
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    let target = corten_sys::path::open_in_root(root.as_fd(), &path, nix::libc::O_PATH, 0)?;
    let name = |fd: i32| fs::read_link(format!("/proc/self/fd/{fd}"));
    let (root, target) = (name(root.as_raw_fd())?, name(target.as_raw_fd())?);
    target.strip_prefix(root).map(Path::to_owned).map_err(|_| io::ErrorKind::NotFound.into())
}

pub(crate) fn unified() -> bool {
    statfs("/sys/fs/cgroup").is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// The v1 hierarchies as the container sees them, and where they are on the host.
fn hierarchies(target: &str) -> Vec<(String, PathBuf)> {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let names = text.lines().filter_map(|line| line.split(':').nth(1)).filter(|name| !name.is_empty());
    let name = |options: &str| options.strip_prefix("name=").unwrap_or(options).to_owned();
    let place = |name: String| (format!("{target}/{name}"), Path::new("/sys/fs/cgroup").join(&name));
    names.map(|options| place(name(options))).collect()
}

/// criu's names for a kind of namespace, and for one that is made outside and handed to it.
pub(crate) fn namespace_names(kind: LinuxNamespaceType) -> (&'static str, &'static str) {
    match kind {
        LinuxNamespaceType::Network => ("net", "extRootNetNS"),
        LinuxNamespaceType::Pid => ("pid", "extRootPidNS"),
        LinuxNamespaceType::Mount => ("mnt", ""),
        LinuxNamespaceType::Cgroup => ("cgroup", ""),
        LinuxNamespaceType::Uts => ("uts", ""),
        LinuxNamespaceType::Ipc => ("ipc", ""),
        LinuxNamespaceType::User => ("user", ""),
        LinuxNamespaceType::Time => ("time", ""),
    }
}

/// A failure of criu's, or of using it.
pub(crate) fn wrong(operation: impl Into<String>, reason: impl Into<String>) -> Error {
    Error::Criu { operation: operation.into(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_files() {
        let with = |path: &str| BTreeMap::from([(CONFIG_ANNOTATION.to_owned(), path.to_owned())]);
        assert_eq!(config_file(&BTreeMap::new()).as_deref(), Some("/etc/criu/runc.conf"));
        assert_eq!(config_file(&with("/x.conf")).as_deref(), Some("/x.conf"));
        assert_eq!(config_file(&with("")), None);
    }

    #[test]
    fn what_is_outside() {
        let dir = tempfile::tempdir().expect("temp dir");
        let config = r#"{"ociVersion":"1.0.2","root":{"path":"rootfs"},"process":{"cwd":"/","user":{"uid":0,"gid":0}},
            "mounts":[{"destination":"/proc","type":"proc","source":"proc"},
                {"destination":"/data/link/x","source":"vol","options":["rbind","ro"]},
                {"destination":"/b","type":"bind","source":"/b"}],
            "linux":{"maskedPaths":["/proc/kcore"],
                "namespaces":[{"type":"pid"},{"type":"network","path":"/run/netns/n"},{"type":"ipc","path":""}]}}"#;
        fs::write(dir.path().join("config.json"), config).expect("write");
        let rootfs = dir.path().join("rootfs");
        fs::create_dir_all(rootfs.join("real/x")).expect("mkdir");
        fs::create_dir_all(rootfs.join("data")).expect("mkdir");
        std::os::unix::fs::symlink("/real", rootfs.join("data/link")).expect("symlink");
        let bundle = Bundle::load(dir.path()).expect("bundle");
        let outside = Outside::new(&bundle, &rootfs);
        let expected = [("/real/x".to_owned(), bundle.path.join("vol")), ("/b".to_owned(), "/b".into())];
        assert_eq!(outside.binds, expected);
        assert_eq!(outside.masked, ["/proc/kcore"]);
        assert_eq!(outside.joined, [(LinuxNamespaceType::Network, "/run/netns/n".into())]);
    }
}
