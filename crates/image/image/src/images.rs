//! The facade.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use corten_content::{Digest, Store};
use corten_distribution::{Auth, Client, Reference};
use corten_snapshot::{Overlay, Snapshotter};
use tokio::sync::watch;

use crate::catalog::Catalog;
use crate::flight::Flights;
use crate::gc::Spare;
use crate::lease::Leases;
use crate::progress::{Gauge, Meter};
use crate::{Config, Error, Image, Progress, Result, gc, pull};

/// What active snapshots of layers being unpacked are called; no container's key begins like this.
pub(crate) const UNPACK_PREFIX: &str = "unpack ";
/// How often a pull says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// Shorter prefixes of ids aren't looked for: they are more likely names.
const MIN_ID_PREFIX: usize = 12;

/// The images of one root directory. Clones share it; the directory belongs to one process.
#[derive(Debug, Clone)]
pub struct Images {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) content: Store,
    pub(crate) client: Client,
    pub(crate) snapshotter: Arc<dyn Snapshotter>,
    pub(crate) catalog: Catalog,
    pub(crate) leases: Arc<Leases>,
    /// Garbage is collected by one at a time.
    pub(crate) collecting: Mutex<()>,
    pub(crate) layer_flights: Flights<Digest, Arc<Meter>, Result<(), Arc<Error>>>,
    /// How many layers were unpacked since the start, and how many of these have been made durable.
    pub(crate) finished_layers: AtomicU64,
    pub(crate) synced_layers: tokio::sync::Mutex<u64>,
    /// Credentials are part of the key: nobody gets an image by waiting for somebody who may have it.
    image_flights: Flights<(Reference, Option<Auth>), Gauge, Pulled>,
}

/// What all who wait for a pull get.
type Pulled = Result<Image, Arc<Error>>;

/// How an image is pulled.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// Credentials; without them the registry's configured ones count, or none.
    pub auth: Option<Auth>,
    /// Where the pull says how far it is. The latest state is always there: a slow reader slows nothing.
    pub progress: Option<watch::Sender<Progress>>,
}

/// What a removal took away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// The names that are gone.
    pub names: Vec<String>,
    /// The image that is gone.
    pub image: Option<String>,
}

impl Images {
    /// Opens the library, creating what is missing, and removes what a killed process left half done.
    ///
    /// # Errors
    /// When another process has it open, or its files can't be used.
    pub async fn open(mut config: Config) -> Result<Images> {
        // Mounts outlive the working directory.
        config.root = std::path::absolute(&config.root).map_err(|source| Error::Io {
            operation: "make absolute",
            path: config.root.clone(),
            source,
        })?;
        let root = config.root.clone();
        let open = move || {
            let path = root.join("snapshots");
            let failed = |source| Error::Snapshot {
                operation: "open the snapshots",
                subject: path.display().to_string(),
                source,
            };
            create(&root)?;
            Overlay::open(&path).map_err(failed)
        };
        let overlay = blocking("opening snapshots", open).await??;
        Images::with_snapshotter(config, Arc::new(overlay)).await
    }

    /// As [`open`](Self::open), with snapshots of the caller's choice.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub async fn with_snapshotter(config: Config, snapshotter: Arc<dyn Snapshotter>) -> Result<Images> {
        let open = move || {
            create(&config.root)?;
            let content = Store::open(config.root.join("content")).map_err(Error::Garbage)?;
            let catalog = Catalog::open(&config.root.join("images.redb"))?;
            let client = Client::new(config.registries.clone());
            let inner = Inner {
                config,
                content,
                client,
                snapshotter,
                catalog,
                leases: Arc::default(),
                collecting: Mutex::default(),
                layer_flights: Flights::default(),
                finished_layers: AtomicU64::new(0),
                synced_layers: tokio::sync::Mutex::new(0),
                image_flights: Flights::default(),
            };
            gc::remove_leftovers(&inner)?;
            Ok(Images { inner: Arc::new(inner) })
        };
        blocking("opening images", open).await?
    }

    /// Makes an image available: resolves the name at its registry, fetches what isn't there yet, unpacks it. Safe to
    /// cancel by dropping the future: what was fetched is continued by the next pull. Pulls of the same image with the same
    /// credentials at the same time share the work.
    ///
    /// # Errors
    /// When the name is invalid, the registry refuses or can't be reached, content isn't what was promised, or the disk is full. Then no
    /// part of the image is visible. [`Error::kind`] sorts them.
    pub async fn pull(&self, reference: &str, options: PullOptions) -> Result<Image> {
        let reference = Reference::parse(reference)?;
        let PullOptions { auth, progress } = options;
        let key = (reference.clone(), auth.clone());
        let begin = || {
            let gauge = Gauge::new(&reference.to_string());
            let work = pull::pull(self.inner.clone(), reference.clone(), auth, gauge.clone());
            (gauge, async move { work.await.map_err(Arc::new) })
        };
        let (gauge, flight) = self.inner.image_flights.join(key, begin);
        let result = match progress {
            Some(progress) => watched(flight, &gauge, &progress).await,
            None => flight.await,
        };
        let result = result.map_err(|error| Arc::try_unwrap(error).unwrap_or_else(Error::Shared));
        if result.as_ref().is_err_and(Error::is_disk_full) {
            // Layers and downloads that were finished before the disk was full help nobody now.
            self.collect(Duration::ZERO).await.ok();
        }
        result
    }

    /// Finds an image by name (short ones are completed), by name and digest, or by id (`sha256:…`, the hex digits alone, or
    /// the first 12 or more of them when no other image has the same).
    ///
    /// # Errors
    /// None today; the signature leaves room for a catalog that isn't in memory.
    #[expect(
        clippy::unused_async,
        reason = "callers shouldn't notice when the catalog grows too large for memory"
    )]
    pub async fn get(&self, name: &str) -> Result<Option<Image>> {
        Ok(self.find(name).and_then(|id| self.inner.catalog.image(&id)))
    }

    fn find(&self, name: &str) -> Option<Digest> {
        let catalog = &self.inner.catalog;
        if let Ok(id) = name.parse::<Digest>() {
            return catalog.image(&id).map(|_| id);
        }
        let named = Reference::parse(name).ok().and_then(|reference| {
            let name = match reference.digest() {
                Some(digest) => format!("{}@{digest}", reference.name()),
                None => reference.tagged()?,
            };
            catalog.name(&name).map(|name| name.image)
        });
        let is_hex =
            name.len() >= MIN_ID_PREFIX && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        named.or_else(|| catalog.prefix(name).filter(|_| is_hex))
    }

    /// All images, sorted by id.
    ///
    /// # Errors
    /// None today; see [`get`](Self::get).
    #[expect(clippy::unused_async, reason = "as of `get`")]
    pub async fn list(&self) -> Result<Vec<Image>> {
        Ok(self.inner.catalog.list())
    }

    /// Removes the image that this name, digest or id finds, with all of its names, as the CRI wants it, and frees what
    /// nothing else needs. Containers made from it keep their file systems. An unknown image is as good as removed.
    ///
    /// # Errors
    /// When the database can't be written. That disk space can't be given back is logged, since the image is gone all the same.
    pub async fn remove(&self, name: &str) -> Result<Removed> {
        let Some(id) = self.find(name) else { return Ok(Removed::default()) };
        let inner = self.inner.clone();
        let spare = Spare { partials: inner.config.keep_partial_downloads, blobs: Duration::ZERO };
        blocking("removing an image", move || {
            let names = inner.catalog.remove(&id)?;
            if let Err(error) = gc::collect(&inner, spare) {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(image = %id, error, "disk space of a removed image can't be given back yet");
            }
            Ok(Removed { names, image: Some(id.to_string()) })
        })
        .await?
    }

    /// Removes blobs and snapshots that no image, container or pull in flight needs, and old partial downloads.
    ///
    /// # Errors
    /// When something can't be removed; the rest is removed all the same.
    pub async fn gc(&self) -> Result<()> {
        self.collect(self.inner.config.keep_partial_downloads).await
    }

    async fn collect(&self, keep_partials: Duration) -> Result<()> {
        let inner = self.inner.clone();
        let spare = Spare { partials: keep_partials, blobs: Duration::ZERO };
        blocking("collecting garbage", move || gc::collect(&inner, spare)).await?
    }
}

/// Awaits a pull and tells how far it is meanwhile.
async fn watched(
    flight: impl Future<Output = Pulled>,
    gauge: &Gauge,
    progress: &watch::Sender<Progress>,
) -> Pulled {
    tokio::pin!(flight);
    let tell = || {
        let now = gauge.read();
        progress.send_if_modified(|last| {
            let changed = *last != now;
            *last = now;
            changed
        });
    };
    let mut interval = tokio::time::interval(PROGRESS_INTERVAL);
    loop {
        tokio::select! {
            biased;
            result = &mut flight => {
                tell();
                return result;
            }
            _ = interval.tick() => tell(),
        }
    }
}

fn create(root: &Path) -> Result<()> {
    fs::create_dir_all(root).map_err(|source| Error::Io {
        operation: "create",
        path: root.to_owned(),
        source,
    })
}

/// Runs synchronous work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Panicked(what))
}
