//! Pulling: name → manifest → configuration → layers → image.
//!
//! Small documents are fetched one after another, since each says what the next one is; the layers all at once, a bounded number
//! in flight. The image appears in the catalog when everything below it is there, in one transaction.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use corten_content::{Digest, Expected};
use corten_distribution::{Auth, Descriptor, MAX_MANIFEST_BYTES, Reference, Repository, media_type};
use futures_util::future::try_join_all;
use oci_spec::image::ImageConfiguration;
use tokio::sync::{Semaphore, mpsc};

use crate::catalog::{Name, Record};
use crate::images::{Inner, blocking};
use crate::layer::{Job, LayerFlight};
use crate::lease::{Lease, Needs};
use crate::manifest::{self, Layer, bad};
use crate::progress::{Gauge, Meter};
use crate::{Error, Image, Result};

/// Configurations are small; the largest seen hold long histories.
const MAX_CONFIG_BYTES: u64 = 8 << 20;
/// An index may point to an index, but not forever.
const MAX_INDEX_DEPTH: usize = 4;

/// How long a failed pull waits for the threads of its other layers to notice.
const GIVE_UP_TIME: Duration = Duration::from_secs(10);

/// Everything a pull learns before it fetches layers.
struct Plan {
    id: Digest,
    target: Digest,
    record: Record,
    config: ImageConfiguration,
    layers: Vec<Layer>,
}

/// Pulls an image. Dropping the future cancels it.
pub(crate) async fn pull(
    inner: Arc<Inner>,
    reference: Reference,
    auth: Option<Auth>,
    gauge: Gauge,
) -> Result<Image> {
    let image = reference.to_string();
    let lease = Lease::new(&inner.leases);
    let puller = Puller {
        repository: inner.client.repository(&reference, auth),
        image: image.clone(),
        inner: inner.clone(),
        lease,
    };
    let plan = puller.plan(&reference).await?;
    puller.layers(&plan.layers, &gauge).await?;
    if puller.inner.config.sync {
        puller.sync().await?;
    }
    let names = names(&reference, &plan);
    let id = plan.id.clone();
    let committed = inner.clone();
    blocking("recording an image", move || committed.catalog.put(&plan.id, plan.record, plan.config, &names))
        .await??;
    // Only now, that the catalog holds on to it, may the lease go.
    drop(puller);
    inner.catalog.image(&id).ok_or_else(|| bad(&image, "it was removed while it was pulled".to_owned()))
}

/// Under which names the image is found: the tag it was asked for by, and the digest that the tag stands for.
fn names(reference: &Reference, plan: &Plan) -> Vec<(String, Name)> {
    let target = Name { image: plan.id.clone(), target: plan.target.clone() };
    // With a digest the tag isn't asked for, so nobody said that it means this image.
    let tagged = reference.tagged().filter(|_| reference.digest().is_none());
    let by_digest = format!("{}@{}", reference.name(), plan.target);
    tagged.into_iter().chain([by_digest]).map(|name| (name, target.clone())).collect()
}

struct Puller {
    inner: Arc<Inner>,
    repository: Repository,
    image: String,
    lease: Lease,
}

impl Puller {
    async fn plan(&self, reference: &Reference) -> Result<Plan> {
        let target = self.repository.resolve(reference).await.map_err(|e| self.registry(e))?;
        let (mut descriptor, mut blobs) = (target.clone(), BTreeSet::new());
        let mut bytes = self.manifest(&descriptor).await?;
        blobs.insert(descriptor.digest.clone());
        for depth in 0.. {
            if !media_type::is_index(&descriptor.media_type) {
                break;
            }
            if depth == MAX_INDEX_DEPTH {
                return Err(bad(&self.image, "its index points to indexes without end".to_owned()));
            }
            descriptor = manifest::select(&self.image, &descriptor, &bytes, &self.inner.config.platform)?;
            bytes = self.manifest(&descriptor).await?;
            blobs.insert(descriptor.digest.clone());
        }
        if !media_type::is_manifest(&descriptor.media_type) {
            return Err(bad(&self.image, format!("its manifest is of type {:?}", descriptor.media_type)));
        }
        let parsed = manifest::manifest(&self.image, &descriptor, &bytes)?;
        let config_bytes = self.small_blob(&parsed.config).await?;
        let platform = &self.inner.config.platform;
        let (config, layers) = manifest::layers(&self.image, parsed.layers, &config_bytes, platform)?;
        blobs.insert(parsed.config.digest.clone());
        blobs.extend(layers.iter().map(|layer| layer.blob.digest.clone()));
        let layer_bytes = layers.iter().map(|layer| layer.blob.size);
        let size = layer_bytes.fold(descriptor.size.saturating_add(parsed.config.size), u64::saturating_add);
        let text = String::from_utf8(config_bytes.to_vec())
            .map_err(|_| bad(&self.image, "its configuration isn't UTF-8".to_owned()))?;
        let chain = layers.iter().map(|layer| layer.chain_id.clone()).collect();
        let record = Record { manifest: descriptor, size, blobs, chain, config: text, pinned: false };
        Ok(Plan { id: parsed.config.digest, target: target.digest, record, config, layers })
    }

    /// A manifest or index, from the store if it's there.
    async fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes> {
        if let Some(bytes) = self.stored(descriptor, MAX_MANIFEST_BYTES).await? {
            return Ok(bytes);
        }
        let manifest = self.repository.manifest(descriptor).await.map_err(|e| self.registry(e))?;
        self.store(descriptor, manifest.bytes.clone()).await?;
        Ok(manifest.bytes)
    }

    /// A blob that is small enough for memory.
    async fn small_blob(&self, descriptor: &Descriptor) -> Result<Bytes> {
        if descriptor.size > MAX_CONFIG_BYTES {
            return Err(bad(&self.image, format!("its configuration has {} bytes", descriptor.size)));
        }
        if let Some(bytes) = self.stored(descriptor, MAX_CONFIG_BYTES).await? {
            return Ok(bytes);
        }
        let mut blob = self.repository.blob(descriptor, 0).await.map_err(|e| self.registry(e))?;
        let mut bytes = Vec::new();
        while let Some(chunk) = blob.chunk().await.map_err(|e| self.registry(e))? {
            bytes.extend_from_slice(&chunk);
        }
        let bytes = Bytes::from(bytes);
        self.store(descriptor, bytes.clone()).await?;
        Ok(bytes)
    }

    /// Leases a blob and reads it, if it's there and undamaged.
    async fn stored(&self, descriptor: &Descriptor, limit: u64) -> Result<Option<Bytes>> {
        let blobs = BTreeSet::from([descriptor.digest.clone()]);
        self.lease.add(Needs { blobs, ..Needs::default() }).await;
        let (content, digest) = (self.inner.content.clone(), descriptor.digest.clone());
        let image = self.image.clone();
        let read = blocking("reading a blob", move || match content.read(&digest, limit) {
            Ok(bytes) => Ok(Some(Bytes::from(bytes))),
            Err(corten_content::Error::NotFound(_)) => Ok(None),
            Err(error @ corten_content::Error::DigestMismatch { .. }) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(image, error, "a stored blob is damaged: fetching it again");
                content.delete(&digest).map(|()| None)
            }
            Err(error) => Err(error),
        });
        read.await?.map_err(|e| self.content(e))
    }

    async fn store(&self, descriptor: &Descriptor, bytes: Bytes) -> Result<()> {
        let expected = Expected { digest: descriptor.digest.clone(), size: descriptor.size };
        let content = self.inner.content.clone();
        let put = blocking("storing a blob", move || content.put(&bytes, Some(expected)));
        put.await?.map(drop).map_err(|e| self.content(e))
    }

    /// Makes all layers available, those that are there included.
    async fn layers(&self, layers: &[Layer], gauge: &Gauge) -> Result<()> {
        let blobs = layers.iter().map(|layer| layer.blob.digest.clone()).collect();
        let snapshots = layers.iter().map(|layer| layer.chain_id.to_string()).collect();
        self.lease.add(Needs { blobs, snapshots }).await;
        let permits = Arc::new(Semaphore::new(self.inner.config.max_concurrent_downloads.max(1)));
        let (mut flights, mut meters) = (Vec::<LayerFlight>::new(), Vec::new());
        let mut below: Option<(Digest, LayerFlight)> = None;
        let (running, mut ended) = mpsc::channel(1);
        for layer in layers {
            let below_us = below.take();
            let begin = || {
                let meter = Arc::new(Meter::new(layer.blob.digest.clone(), layer.blob.size));
                let job = Job {
                    inner: self.inner.clone(),
                    repository: self.repository.clone(),
                    image: self.image.clone(),
                    layer: layer.clone(),
                    permits: permits.clone(),
                    meter: meter.clone(),
                    running: running.downgrade(),
                    below: below_us,
                };
                (meter, job.run())
            };
            let (meter, flight) = self.inner.layer_flights.join(layer.chain_id.clone(), begin);
            meters.push(meter);
            below = Some((layer.chain_id.clone(), flight.clone()));
            flights.push(flight);
        }
        gauge.set(meters);
        let result = try_join_all(flights).await.map(drop).map_err(Error::Shared);
        if result.is_err() {
            // The layers that didn't fail were given up; what they unpacked should be gone when the error arrives.
            drop((running, below));
            tokio::time::timeout(GIVE_UP_TIME, ended.recv()).await.ok();
        }
        result
    }

    /// Makes the unpacked layers durable, all at once: a catalog that survives a power failure must not name what didn't.
    async fn sync(&self) -> Result<()> {
        let finished = self.inner.finished_layers.load(Ordering::SeqCst);
        let mut synced = self.inner.synced_layers.lock().await;
        if *synced >= finished {
            return Ok(());
        }
        let root = self.inner.config.root.clone();
        let sync = move || {
            let file = File::open(&root).map_err(|e| (e, root.clone()))?;
            nix::unistd::syncfs(file).map_err(|e| (e.into(), root))
        };
        let failed = |(source, path)| Error::Io { operation: "make durable", path, source };
        blocking("syncing", sync).await?.map_err(failed)?;
        *synced = finished;
        Ok(())
    }

    fn registry(&self, source: corten_distribution::Error) -> Error {
        Error::Registry { image: self.image.clone(), source }
    }

    fn content(&self, source: corten_content::Error) -> Error {
        Error::Content { image: self.image.clone(), source }
    }
}
