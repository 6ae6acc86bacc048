//! What all RPCs share.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use corten_cni::Cni;
use corten_image::Images;
use corten_state::Store;
use corten_task::Shims;
use tonic::Code;

use crate::cgroup::Hierarchies;
use crate::coalesce::Flights;
use crate::config::{Config, Dirs};
use crate::container::Container;
use crate::records::{self, ContainerRecord, SandboxRecord};
use crate::sandbox::{Sandbox, SandboxKey};
use crate::{Error, Result, pod_files};

/// What the server stands on.
#[derive(Debug)]
pub struct Deps {
    /// Images and the file systems of containers.
    pub images: Images,
    /// Shims.
    pub shims: Shims,
    /// Pod networks.
    pub cni: Cni,
    /// Where things are.
    pub dirs: Dirs,
    /// Choices.
    pub config: Config,
}

/// The CRI services. Clones are the same server.
#[derive(Clone)]
pub struct Server(pub(crate) Arc<Inner>);

/// The server behind its clones.
pub(crate) struct Inner {
    pub(crate) deps: Deps,
    pub(crate) sandbox_store: Store<SandboxRecord>,
    pub(crate) container_store: Store<ContainerRecord>,
    pub(crate) sandboxes: Table<Sandbox>,
    pub(crate) containers: Table<Container>,
    pub(crate) run_flights: Flights<SandboxKey, String>,
    pub(crate) create_flights: Flights<(String, String, u32), String>,
    pub(crate) start_flights: Flights<String, ()>,
    pub(crate) hierarchies: Hierarchies,
    /// The capabilities that the daemon holds.
    pub(crate) held: Vec<String>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("dirs", &self.0.deps.dirs).finish_non_exhaustive()
    }
}

/// Things by id.
#[derive(Debug)]
pub(crate) struct Table<T>(RwLock<BTreeMap<String, Arc<T>>>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<T> Table<T> {
    pub(crate) fn get(&self, id: &str) -> Option<Arc<T>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn insert(&self, id: &str, thing: Arc<T>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), thing);
    }

    pub(crate) fn remove(&self, id: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

impl Server {
    /// A server that knows nothing yet: call [`recover`](Self::recover) before serving.
    ///
    /// # Errors
    ///
    /// If the directories for records can't be made.
    pub fn new(deps: Deps) -> Result<Self> {
        for dir in [deps.dirs.pods(), deps.dirs.bundles()] {
            pod_files::make_dir(&dir)?;
        }
        let records = deps.dirs.root.join("records");
        Ok(Self(Arc::new(Inner {
            sandbox_store: store(&records.join("sandboxes"))?,
            container_store: store(&records.join("containers"))?,
            sandboxes: Table::default(),
            containers: Table::default(),
            run_flights: Flights::default(),
            create_flights: Flights::default(),
            start_flights: Flights::default(),
            hierarchies: Hierarchies::discover(),
            held: crate::spec::held_capabilities(),
            deps,
        })))
    }
}

fn store<T: serde::Serialize + serde::de::DeserializeOwned>(dir: &Path) -> Result<Store<T>> {
    let opened = Store::open(dir, records::VERSION).map(Store::volatile);
    opened.map_err(Error::internal(format!("open the records in {}", dir.display())))
}

impl Inner {
    /// A sandbox that clients know of.
    pub(crate) fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>> {
        self.sandboxes
            .get(id)
            .filter(|sandbox| sandbox.record().phase.is_visible())
            .ok_or_else(|| Error::sandbox(id))
    }

    /// A container that clients know of.
    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>> {
        self.containers
            .get(id)
            .filter(|container| container.record().phase.is_visible())
            .ok_or_else(|| Error::container(id))
    }

    /// All containers of a sandbox, also those that clients don't know of.
    pub(crate) fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        let mut all = self.containers.all();
        all.retain(|container| container.record().sandbox_id == sandbox);
        all
    }

    /// The sandbox of a container.
    pub(crate) fn sandbox_of(&self, container: &Container) -> Result<Arc<Sandbox>> {
        let id = &container.record().sandbox_id;
        self.sandboxes.get(id).ok_or_else(|| Error::sandbox(id))
    }
}

/// A new id: 64 hex digits, as clients expect it.
pub(crate) fn new_id() -> Result<String> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 32];
    let mut file = std::fs::File::open(path).map_err(Error::io("open", path))?;
    file.read_exact(&mut bytes).map_err(Error::io("read", path))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// For `map_err`: something asked of a shim failed.
pub(crate) fn shim_error(operation: impl Into<String>) -> impl FnOnce(corten_task::Error) -> Error {
    Error::below(operation, |error: &corten_task::Error| Code::from_i32(error.code() as i32))
}

/// For `map_err`: something asked of the image library failed.
pub(crate) fn image_error(operation: impl Into<String>) -> impl FnOnce(corten_image::Error) -> Error {
    Error::below(operation, crate::image::code)
}
