//! `checkpoint`: a container's processes as files, from which `restore` makes them again; criu does the work.

use std::{
    ffi::CString,
    fs, io,
    os::fd::{AsFd, OwnedFd},
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

use corten_sys::path::open_in_root;
use nix::libc::O_PATH;
use oci_spec::runtime::LinuxNamespaceType;

use crate::{
    Error, Result, Runtime, Status, accommodate,
    cgroup::CgroupDoing,
    criu::{
        self, CriuOptions, Directories, Outside,
        rpc::{self, Kind},
        session::{self, Event, Session},
    },
    error::Doing,
    load,
    query::Now,
    steps::target::is_directory,
};

/// The log's name, which containerd's shim copies.
const LOG: &str = "dump.log";
/// The file beside the images that says what the container's stdio was; runc's too.
pub(crate) const DESCRIPTORS: &str = "descriptors.json";

/// How to checkpoint.
#[derive(Debug, Default)]
pub struct CheckpointOptions {
    /// What restore has too.
    pub criu: CriuOptions,
    /// Where an earlier dump is, relative to the images; only what has changed since is saved.
    pub parent_path: Option<PathBuf>,
    /// The container runs on.
    pub leave_running: bool,
    /// Connections that are being made are left out.
    pub tcp_skip_in_flight: bool,
    /// Files that are deleted but open get a name again.
    pub link_remap: bool,
    /// Gets a NUL byte once pages can be fetched (with `lazy_pages`).
    pub status_fd: Option<OwnedFd>,
    /// Address and port of the page server that takes the memory.
    pub page_server: Option<(String, u16)>,
    /// Only memory, and the container runs on: to make the real dump shorter.
    pub pre_dump: bool,
}

impl Runtime {
    /// Saves a running (or paused) container. Unless it is left running or this is a pre-dump it ends and is deleted.
    ///
    /// # Errors
    /// [`Error::Status`]; [`Error::Criu`]. The container then runs on as before.
    pub fn checkpoint(&self, id: &str, options: CheckpointOptions) -> Result<()> {
        let now = self.now(id)?;
        if !matches!(now.status, Status::Running | Status::Paused) {
            return Err(Error::Status { id: id.to_owned(), status: now.status, operation: "checkpoint" });
        }
        session::check_version()?;
        let ends = !(options.leave_running || options.pre_dump);
        if let Err(error) = dump(&now, options) {
            self.let_run_on(&now);
            return Err(error);
        }
        if ends { self.clear_up(&self.now(id)?) } else { Ok(()) }
    }

    /// A dump that failed, or was killed, may have left the processes frozen.
    fn let_run_on(&self, now: &Now) {
        let cgroup = &now.record.cgroup;
        if now.status != Status::Paused && cgroup.is_frozen().unwrap_or(false) {
            let thawed = cgroup.thaw().cgroup("thaw", cgroup.path());
            thawed.unwrap_or_else(|e| {
                tracing::warn!("the container is still frozen: {}", crate::error::chain(&e))
            });
        }
    }
}

fn check_parent(options: &CheckpointOptions) -> Result<()> {
    let Some(parent) = &options.parent_path else { return Ok(()) };
    let path = options.criu.image_path.join(parent);
    let problem = match path.metadata() {
        _ if parent.is_absolute() => "it must be relative to the images".to_owned(),
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => "it is not a directory".to_owned(),
        Err(e) => e.to_string(),
    };
    Err(criu::wrong(format!("use the parent images (--parent-path) {}", parent.display()), problem))
}

fn dump(now: &Now, mut options: CheckpointOptions) -> Result<()> {
    let record = &now.record;
    if let Some(config) = record.config.as_deref().filter(|config| !record.bundle.join(config).is_file()) {
        let what = format!("read the config {} that the container was created with", config.display());
        return Err(criu::wrong(what, "it isn't a regular file, or not there any more".to_owned()));
    }
    let mut bundle = load::bundle(&record.bundle, record.config.as_deref())?;
    accommodate::translate(&mut bundle);
    let outside = Outside::new(&bundle, &record.rootfs);
    let directories = Directories::open(&options.criu, LOG, true)?;
    check_parent(&options)?;
    let mut request = directories.common(&options.criu);
    request.pid = Some(record.init.pid);
    request.root = Some(record.rootfs.display().to_string());
    request.leave_running = Some(options.leave_running);
    request.tcp_skip_in_flight = Some(options.tcp_skip_in_flight);
    request.link_remap = Some(options.link_remap);
    request.freeze_cgroup = freezer(now);
    request.config_file = criu::config_file(&record.annotations);
    request.page_server = options
        .page_server
        .take()
        .map(|(address, port)| rpc::PageServer { address: Some(address), port: Some(port.into()) });
    if let Some(parent) = &options.parent_path {
        request.parent_img = Some(parent.display().to_string());
        request.track_mem = Some(true);
    }
    external_namespaces(&outside, &mut request)?;
    check_features(&options)?;
    let kind = if options.pre_dump { Kind::PreDump } else { Kind::Dump };
    if kind == Kind::Dump {
        external_mounts(now, &outside, &mut request);
        note_descriptors(now, &options)?;
    }
    let operation = format!("checkpoint container {}", record.id);
    let mut status_fd = options.status_fd.take();
    let session = Session::start(&[])?;
    session::run(session, kind, request, directories.log(), &operation, &mut |event| {
        ready(&event, &mut status_fd);
        Ok(())
    })
}

fn check_features(options: &CheckpointOptions) -> Result<()> {
    if options.pre_dump {
        let wanted = rpc::Features { mem_track: Some(true), ..rpc::Features::default() };
        session::check_feature(wanted, "--pre-dump")?;
    }
    if options.criu.lazy_pages {
        let wanted = rpc::Features { lazy_pages: Some(true), ..rpc::Features::default() };
        session::check_feature(wanted, "--lazy-pages")?;
    }
    Ok(())
}

/// Tells whoever waits for it that pages can be fetched.
fn ready(event: &Event, status_fd: &mut Option<OwnedFd>) {
    if event.script == "status-ready"
        && let Some(fd) = status_fd.take()
        && let Err(e) = nix::unistd::write(&fd, &[0])
    {
        tracing::warn!("cannot write to the status descriptor: {e}");
    }
}

/// The directory by which criu may freeze all processes at once.
fn freezer(now: &Now) -> Option<String> {
    let mut directories = now.record.cgroup.directories();
    let freezes =
        |names: &str| names.is_empty() && criu::unified() || names.split(',').any(|n| n == "freezer");
    directories.find(|(names, _)| freezes(names)).map(|(_, path)| path.display().to_string())
}

/// Network and PID namespaces that somebody else has made are named, not saved.
fn external_namespaces(outside: &Outside, request: &mut rpc::Options) -> Result<()> {
    for (kind, path) in &outside.joined {
        if matches!(kind, LinuxNamespaceType::Network | LinuxNamespaceType::Pid) {
            let inode =
                fs::metadata(path).doing(|| format!("look at the namespace {}", path.display()))?.ino();
            let (name, key) = criu::namespace_names(*kind);
            request.external.push(format!("{name}[{inode}]:{key}"));
        }
    }
    Ok(())
}

/// Mounts of what is outside, and files masked by the host's /dev/null.
fn external_mounts(now: &Now, outside: &Outside, request: &mut rpc::Options) {
    let mounts = &mut request.external_mounts;
    mounts.extend(
        outside
            .binds
            .iter()
            .map(|(target, _)| rpc::ExternalMount { key: target.clone(), value: target.clone() }),
    );
    // As the container sees them: its links are no business of ours.
    let root = fs::File::open(format!("/proc/{}/root", now.record.init.pid));
    let is_file = |path: &str| -> io::Result<bool> {
        let root = root.as_ref().map_err(|e| io::Error::from(e.kind()))?;
        let found = open_in_root(root.as_fd(), &CString::new(path)?, O_PATH, 0)?;
        Ok(!is_directory(found.as_fd())?)
    };
    for path in &outside.masked {
        if is_file(path).unwrap_or(false) {
            mounts.push(rpc::ExternalMount { key: path.clone(), value: "/dev/null".to_owned() });
        }
    }
}

/// What the container's stdio is: pipes are replaced by those of whoever restores it.
fn note_descriptors(now: &Now, options: &CheckpointOptions) -> Result<()> {
    let link = |fd: u8| {
        let link = fs::read_link(format!("/proc/{}/fd/{fd}", now.record.init.pid));
        link.map_or_else(|_| String::new(), |target| target.display().to_string())
    };
    let path = options.criu.image_path.join(DESCRIPTORS);
    let json = serde_json::to_vec(&[link(0), link(1), link(2)]).map_err(io::Error::from);
    json.and_then(|json| fs::write(&path, json)).doing(|| format!("write {}", path.display()))
}
