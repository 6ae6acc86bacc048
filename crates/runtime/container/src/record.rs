//! What is kept of a container on disk, so that the next process can act on it.
//!
//! ```text
//! <root>/<id>/        made by mkdir: the id is taken from then on
//!   cgroup            a symbolic link that says where the cgroup is: made before it, so that a killed `create`
//!                     can be cleaned up after (a link because it is one system call, and no data block)
//!   state.json        [`Record`] as one line of JSON, then the compiled seccomp filter for exec, in the kernel's
//!                     layout; written once, when init has a pid, and before it may live
//!   exec.fifo         exists from when the container is created until it is started; before, it is
//!                     creating.fifo
//! ```

use std::{
    collections::BTreeMap,
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use corten_cgroups::Cgroup;
use corten_state::{Durability, write_atomic};
use corten_sys::process::{Namespaces, pidfd_open};
use nix::{
    fcntl::{Flock, FlockArg},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{stat::fstat, statfs::fstatfs},
};
use oci_spec::runtime::{Hook, Process, Spec};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Error, Result, State, Status, error::Doing, failpoint::Failpoint, filter::Filter, notify::Agent,
    plan::Trusted, rdt::Groups, shared_mounts::SharedMounts,
};

const VERSION: u32 = 1;
const FILE: &str = "state.json";
/// The exec fifo's name.
pub(crate) const FIFO: &str = "exec.fifo";
/// Its name until `create` is done.
pub(crate) const CREATING: &str = "creating.fifo";
const CGROUP: &str = "cgroup";

/// What is kept of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    pub(crate) oci_version: String,
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) created: String,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) owner: String,
    pub(crate) init: Identity,
    pub(crate) cgroup: Cgroup,
    /// CLONE_NEW* bits of the namespaces that exec joins.
    pub(crate) namespaces: u64,
    pub(crate) process: Process,
    /// SECCOMP_FILTER_FLAG_* for the filter; None without one.
    pub(crate) seccomp: Option<u64>,
    /// Who answers the filter's notifications.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<Agent>,
    /// The resource control groups, which exec joins and delete removes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rdt: Option<Groups>,
    /// The mounts that aren't in a namespace of the container's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shared_mounts: Option<SharedMounts>,
    /// What further processes get of the container's execution domain and NUMA policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) personality: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory_policy: Option<(u32, Vec<u64>)>,
    /// Whether the container has a session keyring of its own, which further processes join.
    #[serde(default)]
    pub(crate) keyring: bool,
    /// The file that the config was in, unless config.json.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) config: Option<PathBuf>,
    /// Where hooks' output goes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) trusted: Trusted,
    #[serde(default)]
    pub(crate) poststart: Vec<Hook>,
    #[serde(default)]
    pub(crate) poststop: Vec<Hook>,
}

fn is_default(trusted: &Trusted) -> bool {
    *trusted == Trusted::default()
}

/// A process for all time, not just until its pid is reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    /// The pidfd's inode where pidfs gives each process one of its own (Linux 6.9), else the start time.
    mark: u64,
}

impl Identity {
    /// Of the process that `pidfd` refers to.
    pub(crate) fn new(pid: i32, pidfd: BorrowedFd<'_>) -> io::Result<Self> {
        const PID_FS_MAGIC: i64 = 0x5049_4446;
        let mark = if fstatfs(pidfd)?.filesystem_type().0 == PID_FS_MAGIC {
            fstat(pidfd)?.st_ino
        } else {
            start_time(pid)?
        };
        Ok(Self { pid, mark })
    }

    /// The process, unless it has ended (also if nobody has reaped it yet).
    pub(crate) fn open(&self) -> Option<OwnedFd> {
        let pidfd = pidfd_open(self.pid).ok()?;
        if Self::new(self.pid, pidfd.as_fd()).ok()? != *self {
            return None;
        }
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        let ended = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0);
        (!ended).then_some(pidfd)
    }
}

/// Field 22 of /proc/<pid>/stat.
fn start_time(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let field = fields.split_whitespace().nth(19).and_then(|field| field.parse().ok());
    field.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Whoever has it may delete the container; others who want to wait until it's dropped.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "it counts until it is dropped")] Flock<fs::File>);

/// A container's directory.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    pub(crate) id: String,
    pub(crate) path: PathBuf,
}

impl Home {
    /// Of a valid id.
    pub(crate) fn new(root: &Path, id: &str) -> Result<Self> {
        validate_id(id)?;
        Ok(Self { id: id.to_owned(), path: root.join(id) })
    }

    /// Takes the id.
    pub(crate) fn make(&self) -> Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        // Ours alone: the record has the environment of the container's program.
        let make = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path);
        let mut made = make(&self.path);
        if made.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
            && let Some(root) = self.path.parent()
        {
            // What is above may have to be passed by the users of containers: a rootfs can be there.
            let above = root
                .parent()
                .map_or(Ok(()), |above| fs::DirBuilder::new().recursive(true).mode(0o711).create(above));
            made = above.and_then(|()| match make(root) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                other => other,
            });
            made = made.and_then(|()| make(&self.path));
        }
        match made {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::AlreadyExists { id: self.id.clone() })
            }
            Err(source) => Err(source).doing(|| format!("make {}", self.path.display())),
            Ok(()) => Ok(()),
        }
    }

    /// A file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Waits until nobody else is deleting the container. None if it is gone then: also if its id has been taken
    /// again meanwhile, so that a slow delete doesn't meet a container that it doesn't know.
    pub(crate) fn lock(&self) -> Result<Option<Lock>> {
        let doing = || format!("lock {}", self.path.display());
        let directory = match fs::File::open(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.doing(doing)?,
        };
        let lock = Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, e)| e).doing(doing)?;
        let same = |found: fs::Metadata| Ok(found.ino() == lock.metadata()?.ino());
        match self.path.metadata().and_then(same) {
            Ok(true) => Ok(Some(Lock(lock))),
            Ok(false) => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).doing(doing),
        }
    }

    fn record_error(
        &self,
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error::Record { operation, id: self.id.clone(), source: source.into() }
    }

    /// Reads the record.
    pub(crate) fn load(&self) -> Result<Record> {
        self.load_all().map(|(record, _)| record)
    }

    /// Reads whose record it is: much quicker than all of it.
    pub(crate) fn init(&self) -> Result<Identity> {
        #[derive(Deserialize)]
        struct Whose {
            init: Identity,
        }
        self.read().map(|(whose, ..): (Whose, _, _)| whose.init)
    }

    /// Reads the record's JSON; returns with it the file and where it ends there.
    fn read<T: DeserializeOwned>(&self) -> Result<(T, Vec<u8>, usize)> {
        let bytes = match fs::read(self.file(FILE)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotFound { id: self.id.clone() });
            }
            other => other.map_err(|e| self.record_error("read", e))?,
        };
        let (json, end) = parse(&bytes).map_err(|e| self.record_error("read", e))?;
        Ok((json, bytes, end))
    }

    /// Reads the record and the seccomp filter's bytes.
    pub(crate) fn load_all(&self) -> Result<(Record, Vec<u8>)> {
        let (record, mut bytes, end): (Record, _, _) = self.read()?;
        if record.version > VERSION {
            let found = format!("it has version {}, this corten knows {VERSION}", record.version);
            return Err(self.record_error("read", found));
        }
        bytes.drain(..bytes.len().min(end + 1));
        Ok((record, bytes))
    }

    /// Writes the record and the filter.
    pub(crate) fn save(&self, record: &Record, filter: &[u8]) -> Result<()> {
        let mut bytes = serde_json::to_vec(record).map_err(|e| self.record_error("write", e))?;
        bytes.push(b'\n');
        bytes.extend_from_slice(filter);
        // It needn't survive a crash of the machine: the container doesn't.
        write_atomic(self.file(FILE), &bytes, Durability::Volatile).map_err(|e| self.record_error("write", e))
    }

    /// Notes where the cgroup is going to be.
    pub(crate) fn note_cgroup(&self, place: &Path) -> Result<()> {
        let path = self.file(CGROUP);
        std::os::unix::fs::symlink(place, &path).doing(|| format!("make {}", path.display()))
    }

    /// Where the cgroup of a container without a record may be; None if `create` didn't come so far.
    pub(crate) fn noted_cgroup(&self) -> Option<PathBuf> {
        fs::read_link(self.file(CGROUP)).ok()
    }

    /// Gives the id free again.
    pub(crate) fn remove(&self) -> Result<()> {
        // What there is, is known: that spares reading the directory. The record last: while there is one, a delete
        // that was killed can be repeated.
        for name in [CGROUP, FIFO, CREATING, FILE] {
            fs::remove_file(self.file(name)).ok(); // because remove_dir tells if anything is left
        }
        Failpoint::DeleteRecord.pass()?;
        let removed = match fs::remove_dir(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => fs::remove_dir_all(&self.path),
            other => other,
        };
        match removed {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(e).doing(|| format!("remove {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }
}

impl Record {
    /// Of a container that has just got its init.
    pub(crate) fn new(
        state: State,
        spec: &Spec,
        (init, cgroup): (Identity, Cgroup),
        namespaces: Namespaces,
        filter: Option<&Filter>,
        rdt: Option<Groups>,
    ) -> Self {
        let hooks = spec.hooks().as_ref();
        Self {
            version: VERSION,
            oci_version: state.oci_version,
            id: state.id,
            bundle: state.bundle,
            rootfs: state.rootfs,
            created: state.created,
            annotations: state.annotations,
            owner: state.owner,
            init,
            cgroup,
            namespaces: namespaces.bits(),
            process: spec.process().clone().unwrap_or_default(),
            seccomp: filter.map(|filter| filter.flags),
            agent: filter.and_then(|filter| filter.agent.clone()),
            rdt,
            shared_mounts: None,
            personality: None,
            memory_policy: None,
            keyring: true,
            config: None,
            trusted: Trusted::default(),
            poststart: hooks.and_then(|h| h.poststart().clone()).unwrap_or_default(),
            poststop: hooks.and_then(|h| h.poststop().clone()).unwrap_or_default(),
        }
    }

    /// An error for what can't be done without a cgroup of the container's own.
    pub(crate) fn require_cgroup(&self, operation: &'static str) -> Result<()> {
        if !self.cgroup.is_none() {
            return Ok(());
        }
        Err(Error::Cgroup {
            operation,
            path: self.cgroup.path().to_owned(),
            source: "the container has no cgroup of its own: it was created with --cgroup-manager=disabled, or by a user who may \
                     make none"
                .into(),
        })
    }

    /// The state to show, with this status.
    pub(crate) fn state(&self, status: Status) -> State {
        let pid = if status == Status::Stopped { 0 } else { self.init.pid };
        State {
            oci_version: self.oci_version.clone(),
            id: self.id.clone(),
            pid,
            status,
            bundle: self.bundle.clone(),
            rootfs: self.rootfs.clone(),
            created: self.created.clone(),
            annotations: self.annotations.clone(),
            owner: self.owner.clone(),
        }
    }
}

/// The user that we are.
pub(crate) fn owner() -> String {
    let uid = nix::unistd::getuid();
    if uid.is_root() { "root".to_owned() } else { uid.to_string() }
}

/// RFC 3339 in UTC with nanoseconds.
pub(crate) fn now() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (now.as_secs() / 86400, now.as_secs() % 86400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", now.subsec_nanos())
}

/// Days since 1970 as year, month, day (the usual algorithm over 400-year eras that begin in March).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

fn validate_id(id: &str) -> Result<()> {
    let reason = if id.is_empty() {
        "it is empty"
    } else if id.len() > 1024 {
        "it is longer than 1024 bytes"
    } else if id == "." || id == ".." {
        "it is the name of a directory"
    } else if !id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+-.".contains(&b)) {
        "only letters, digits and _ + - . may be in it"
    } else {
        return Ok(());
    };
    Err(Error::InvalidId { id: id.to_owned(), reason })
}

/// The record at the beginning of a file, or some of it, and where it ends.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<(T, usize)> {
    // JSON has no newline inside of strings, and we write none elsewhere.
    let end = bytes.iter().position(|&b| b == b'\n').unwrap_or(bytes.len());
    let json = bytes.get(..end).unwrap_or_default();
    // As text, like config.json: then there's one parser in the program.
    let text = std::str::from_utf8(json).map_err(serde::de::Error::custom)?;
    Ok((serde_json::from_str(text)?, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_780), (2026, 11, 23));
    }

    #[test]
    fn ids() {
        for good in ["a", "pod-1_2+3.4", "..."] {
            validate_id(good).expect(good);
        }
        for bad in ["", ".", "..", "a/b", "ü", "a b"] {
            assert!(validate_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn we_are_who_we_are() {
        let pid = std::process::id().cast_signed();
        let pidfd = pidfd_open(pid).expect("pidfd_open");
        let identity = Identity::new(pid, pidfd.as_fd()).expect("identity");
        assert!(identity.open().is_some());
        assert!(Identity { mark: identity.mark + 1, ..identity }.open().is_none());
    }
}
