//! One test's world: a directory, a prefix for names, a cgroup parent; and the proof that nothing of it is left.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::leak;
use crate::wait::wait_until;

/// One test's world. Everything a test makes carries the scope's prefix or lies in its directory, so that what it leaks
/// can be told from what others do on the same machine at the same time.
#[derive(Debug)]
pub struct Scope {
    prefix: String,
    dir: tempfile::TempDir,
    must_be_empty: RefCell<BTreeSet<PathBuf>>,
    /// Whether it has been looked at and found clean: a drop needn't look again.
    clean: Cell<bool>,
}

impl Scope {
    /// A new scope; `name` is for people who look at what a failing test left.
    ///
    /// # Errors
    /// When the temporary directory can't be made.
    pub fn new(name: &str) -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        // The time keeps a process id that comes round again from meeting leftovers of its namesake.
        let millis = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis());
        let prefix = format!("ct{}-{n}-{:05x}", std::process::id(), millis & 0xf_ffff);
        let short: String = name.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
        let dir = tempfile::Builder::new()
            .prefix(&format!("{prefix}-{short}-"))
            .rand_bytes(3)
            .tempdir_in("/tmp")
            .context("make the scope's directory")?;
        // Containers may run as any user and must be able to reach their rootfs.
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(Self { prefix, dir, must_be_empty: RefCell::default(), clean: Cell::new(false) })
    }

    /// Runs `body` in a new scope and then proves that it left nothing behind.
    ///
    /// # Errors
    /// What `body` failed with, or the list of what it left.
    pub fn test(name: &str, body: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let scope = Self::new(name)?;
        body(&scope)?;
        scope.finish()
    }

    /// The scope's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path below the scope's directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A directory below the scope's, made if need be.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn make_dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(path)
    }

    /// What all names of this scope begin with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A container id of this scope.
    #[must_use]
    pub fn id(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// The `cgroupsPath` of a container of this scope.
    #[must_use]
    pub fn cgroup(&self, name: &str) -> String {
        format!("{}/{name}", self.cgroup_parent())
    }

    /// The cgroup that all of this scope's cgroups are in, as an absolute path within each hierarchy.
    #[must_use]
    pub fn cgroup_parent(&self) -> String {
        format!("/corten-test/{}", self.prefix)
    }

    /// The name of a network link of this scope: at most 15 bytes, as the kernel wants.
    #[must_use]
    pub fn link(&self, kind: &str) -> String {
        let hash = self.prefix.bytes().fold(5381_u32, |h, b| h.wrapping_mul(33) ^ u32::from(b));
        format!("{kind:.5}-{hash:08x}")
    }

    /// From now on [`Scope::finish`] also demands that this directory is empty or doesn't exist.
    pub fn expect_empty(&self, dir: impl Into<PathBuf>) {
        self.must_be_empty.borrow_mut().insert(dir.into());
    }

    pub(crate) fn expected_empty(&self) -> Vec<PathBuf> {
        self.must_be_empty.borrow().iter().cloned().collect()
    }

    /// Waits until nothing of this scope is left on the machine.
    ///
    /// # Errors
    /// The list of what is still there after some seconds; it is removed all the same.
    pub fn finish(self) -> Result<()> {
        let mut left = Vec::new();
        let clean = wait_until("nothing to be left", Duration::from_secs(20), || {
            left = leak::leaks(&self);
            Ok(left.is_empty().then_some(()))
        });
        if clean.is_err() {
            bail!("the test left behind:\n  {}", left.join("\n  "));
        }
        self.clean.set(true);
        Ok(())
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if !self.clean.get() && !leak::leaks(self).is_empty() {
            leak::destroy(self);
        }
        leak::remove_cgroup_parent(self);
    }
}
