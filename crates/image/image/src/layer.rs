//! One layer: from the registry to a committed snapshot, in one pass.
//!
//! The bytes go from the socket through a short channel to a thread that writes them to the blob's file and hashes them, and
//! hands the same bytes on to be inflated and unpacked. When the stream ends, digest, size and diffID are all known, and only
//! if all three are right does the blob get its name. The snapshot gets its name, the chain id, when the layers below have theirs.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use corten_content::{Digest, Expected, Writer};
use corten_distribution::Repository;
use corten_layer::{ApplyOptions, Pending, Whiteouts};
use corten_snapshot::{Kind, Layering, Snapshotter};
use tokio::sync::{Semaphore, mpsc};

use crate::flight::Flight;
use crate::images::{Inner, UNPACK_PREFIX, blocking};
use crate::manifest::Layer;
use crate::progress::{Meter, Phase};
use crate::{Error, Result};

/// Chunks on their way from the socket to the disk. A chunk is what one read from the socket gave, some 100 KiB at most.
const CHANNEL: usize = 32;
/// How often a writer of the same blob is looked at again.
const BUSY_WAIT: Duration = Duration::from_millis(20);

pub(crate) type LayerFlight = Flight<Result<(), Arc<Error>>>;

/// What it takes to make one layer available.
pub(crate) struct Job {
    pub(crate) inner: Arc<Inner>,
    pub(crate) repository: Repository,
    pub(crate) image: String,
    pub(crate) layer: Layer,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) meter: Arc<Meter>,
    /// Held by threads at work, so that the pull can wait for their end.
    pub(crate) running: mpsc::WeakSender<()>,
    /// The layer below: its chain id and the work that makes it available.
    pub(crate) below: Option<(Digest, LayerFlight)>,
}

impl Job {
    /// Makes the layer available. Leaves nothing but a partial blob behind if it's dropped on the way.
    pub(crate) async fn run(self) -> Result<(), Arc<Error>> {
        self.provide().await.map_err(|error| match error {
            Error::Shared(error) => error,
            error => Arc::new(error),
        })
    }

    async fn provide(self) -> Result<()> {
        if self.is_committed() {
            self.meter.phase(Phase::AlreadyExists);
            return Ok(());
        }
        let merged = self.inner.snapshotter.layering() == Layering::Merged;
        if merged {
            self.wait_below().await?;
        }
        let unpacked = {
            let closed = |_| Error::Panicked("the pull's semaphore");
            let _permit = self.permits.acquire().await.map_err(closed)?;
            self.unpack(merged).await?
        };
        self.wait_below().await?;
        let below = self.below.as_ref().map(|(chain, _)| chain.to_string());
        let (name, image) = (self.layer.chain_id.to_string(), self.image.clone());
        blocking("committing a layer", move || unpacked.commit(&name, below.as_deref(), merged))
            .await?
            .map_err(|e| e.about(&image, &self.layer.blob.digest))?;
        self.inner.finished_layers.fetch_add(1, Ordering::SeqCst);
        if self.inner.config.discard_unpacked_layers {
            let deleted = self.inner.content.delete(&self.layer.blob.digest);
            deleted.map_err(|source| Error::Content { image: self.image.clone(), source })?;
        }
        self.meter.phase(Phase::Done);
        Ok(())
    }

    fn is_committed(&self) -> bool {
        let info = self.inner.snapshotter.stat(self.layer.chain_id.as_str());
        info.is_some_and(|info| info.kind == Kind::Committed)
    }

    async fn wait_below(&self) -> Result<()> {
        match &self.below {
            Some((_, flight)) => flight.clone().await.map_err(Error::Shared),
            None => Ok(()),
        }
    }

    /// Unpacks the layer into an active snapshot of its own.
    async fn unpack(&self, merged: bool) -> Result<Unpacked> {
        let failed = |e: Failure| e.about(&self.image, &self.layer.blob.digest);
        let parent = self.below.as_ref().filter(|_| merged).map(|(chain, _)| chain.to_string());
        let snapshotter = self.inner.snapshotter.clone();
        let digest = self.layer.blob.digest.clone();
        let running = self.running.upgrade();
        let prepare = move || Unpacked::prepare(snapshotter, &digest, parent.as_deref(), running);
        let target = blocking("preparing a layer", prepare).await?.map_err(failed)?;
        let options = self.options(merged).map_err(failed)?;
        let unpacked = match self.open().await? {
            Source::Stored(file) => {
                let meter = self.meter.clone();
                meter.phase(Phase::Extracting);
                let job = move || target.apply(Metered { reader: file, meter }, &options);
                blocking("unpacking a layer", job).await?.map_err(failed)?
            }
            Source::Ingest(writer) => self.stream(writer, target, options).await?,
        };
        Ok(unpacked)
    }

    /// The blob, if it's in the store, or a writer to bring it there. Waits for another layer that brings the same blob.
    async fn open(&self) -> Result<Source> {
        loop {
            let (content, blob) = (self.inner.content.clone(), self.layer.blob.clone());
            let open = move || {
                if content.info(&blob.digest)?.is_some_and(|info| info.size == blob.size) {
                    return content.reader(&blob.digest).map(Source::Stored);
                }
                let expected = Expected { digest: blob.digest.clone(), size: blob.size };
                let writer = content.ingest(&format!("layer {}", blob.digest), Some(expected))?;
                // It may have been finished between the two looks.
                if content.info(&blob.digest)?.is_some_and(|info| info.size == blob.size) {
                    writer.abandon();
                    return content.reader(&blob.digest).map(Source::Stored);
                }
                Ok(Source::Ingest(Box::new(writer)))
            };
            match blocking("opening a blob", open).await? {
                Err(corten_content::Error::Busy { .. }) => tokio::time::sleep(BUSY_WAIT).await,
                opened => {
                    return opened.map_err(|source| Error::Content { image: self.image.clone(), source });
                }
            }
        }
    }

    /// Downloads and unpacks at the same time.
    async fn stream(&self, writer: Box<Writer>, target: Unpacked, options: ApplyOptions) -> Result<Unpacked> {
        self.meter.phase(Phase::Downloading);
        let resumed = writer.offset();
        let (sender, receiver) = mpsc::channel(CHANNEL);
        let meter = self.meter.clone();
        let unpack =
            blocking("unpacking a layer", move || receive(writer, receiver, target, &options, meter));
        let (downloaded, unpacked) = tokio::join!(self.download(resumed, sender), unpack);
        // If the download failed, the other end only saw its stream break off.
        downloaded?;
        unpacked?.map_err(|e| e.about(&self.image, &self.layer.blob.digest))
    }

    async fn download(&self, offset: u64, sender: mpsc::Sender<Message>) -> Result<()> {
        let failed = |source| Error::Registry { image: self.image.clone(), source };
        let mut blob = self.repository.blob(&self.layer.blob, offset).await.map_err(failed)?;
        self.meter.downloaded(blob.offset());
        while let Some(chunk) = blob.chunk().await.map_err(failed)? {
            self.meter.downloaded(blob.offset());
            if sender.send(Message::Bytes(chunk)).await.is_err() {
                return Ok(()); // the other end failed, and says why
            }
        }
        sender.send(Message::End).await.ok();
        Ok(())
    }

    fn options(&self, merged: bool) -> Result<ApplyOptions, Failure> {
        let whiteouts = match self.inner.snapshotter.layering() {
            Layering::Merged => Whiteouts::Merge,
            Layering::Stacked { user_xattr: true } => Whiteouts::OverlayUser,
            Layering::Stacked { user_xattr: false } => Whiteouts::Overlay,
        };
        let lowers = match self.below.as_ref().filter(|_| merged) {
            Some((chain, _)) => self.inner.snapshotter.lowers(chain.as_str()).map_err(Failure::Snapshot)?,
            None => Vec::new(),
        };
        let expected_diff_id = Some(self.layer.diff_id.to_string());
        Ok(ApplyOptions { whiteouts, lowers, expected_diff_id, ..ApplyOptions::default() })
    }
}

enum Source {
    Stored(std::fs::File),
    Ingest(Box<Writer>),
}

/// Why the synchronous half failed.
pub(crate) enum Failure {
    Content(corten_content::Error),
    Layer(corten_layer::Error),
    Snapshot(corten_snapshot::Error),
}

impl Failure {
    fn about(self, image: &str, layer: &Digest) -> Error {
        let (image, layer) = (image.to_owned(), layer.clone());
        match self {
            Failure::Content(source) => Error::Content { image, source },
            Failure::Layer(source) => Error::Layer { image, layer, source },
            Failure::Snapshot(source) => {
                Error::Snapshot { operation: "unpack a layer", subject: image, source }
            }
        }
    }
}

/// An active snapshot with a layer in it; gone when dropped before its commit.
struct Unpacked {
    snapshotter: Arc<dyn Snapshotter>,
    key: String,
    pending: Pending,
    committed: bool,
    _running: Option<mpsc::Sender<()>>,
}

impl Unpacked {
    fn prepare(
        snapshotter: Arc<dyn Snapshotter>,
        digest: &Digest,
        parent: Option<&str>,
        running: Option<mpsc::Sender<()>>,
    ) -> Result<Unpacked, Failure> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let key = format!("{UNPACK_PREFIX}{number} {digest}");
        snapshotter.prepare(&key, parent).map_err(Failure::Snapshot)?;
        Ok(Unpacked { snapshotter, key, pending: Pending::default(), committed: false, _running: running })
    }

    fn apply(mut self, reader: impl Read, options: &ApplyOptions) -> Result<Unpacked, Failure> {
        let directory = self.snapshotter.directory(&self.key).map_err(Failure::Snapshot)?;
        self.pending = corten_layer::apply(reader, &directory, options).map_err(Failure::Layer)?.pending;
        Ok(self)
    }

    /// Does what needed the layers below, and gives the snapshot its name.
    fn commit(mut self, name: &str, below: Option<&str>, merged: bool) -> Result<(), Failure> {
        if !merged && !self.pending.is_empty() {
            let directory = self.snapshotter.directory(&self.key).map_err(Failure::Snapshot)?;
            let lowers =
                below.map_or(Ok(Vec::new()), |b| self.snapshotter.lowers(b)).map_err(Failure::Snapshot)?;
            self.pending.settle(&directory, &lowers).map_err(Failure::Layer)?;
        }
        match self.snapshotter.commit_onto(name, &self.key, below) {
            Ok(()) => self.committed = true,
            // The same layer over the same layers: as good as ours.
            Err(corten_snapshot::Error::Exists(_)) => {}
            Err(error) => return Err(Failure::Snapshot(error)),
        }
        Ok(())
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        if let Err(error) = self.snapshotter.remove(&self.key) {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(
                key = self.key,
                error,
                "a half unpacked layer can't be removed; the next start does it"
            );
        }
    }
}

/// What comes through the channel. An end must be said: a channel that is merely closed means that the download was given up.
enum Message {
    Bytes(Bytes),
    End,
}

/// The synchronous half of [`Job::stream`].
fn receive(
    writer: Box<Writer>,
    receiver: mpsc::Receiver<Message>,
    target: Unpacked,
    options: &ApplyOptions,
    meter: Arc<Meter>,
) -> Result<Unpacked, Failure> {
    let partial = writer.written().map_err(Failure::Content)?;
    let mut tee = Tee { writer, receiver, rest: Bytes::new(), ended: false, failure: None };
    let applied = {
        let reader = partial.chain(&mut tee);
        target.apply(Metered { reader, meter }, options)
    };
    if let Some(failure) = tee.failure.take() {
        return Err(Failure::Content(failure));
    }
    match applied {
        Ok(unpacked) => {
            tee.drain().map_err(Failure::Content)?;
            tee.writer.commit().map_err(Failure::Content)?;
            Ok(unpacked)
        }
        // Nonsense in the stream is better explained by its digest, if that is wrong too.
        Err(Failure::Layer(error)) if is_nonsense(&error) => {
            tee.drain().map_err(Failure::Content)?;
            if tee.ended {
                tee.writer.commit().map_err(Failure::Content)?;
            }
            Err(Failure::Layer(error))
        }
        Err(failure) => Err(failure),
    }
}

fn is_nonsense(error: &corten_layer::Error) -> bool {
    use corten_layer::Error as E;
    matches!(
        error,
        E::Decompress { .. }
            | E::Truncated { .. }
            | E::Header { .. }
            | E::DiffId { .. }
            | E::Unsupported { .. }
    )
}

/// Reads from the channel, and writes what it reads to the blob.
struct Tee {
    writer: Box<Writer>,
    receiver: mpsc::Receiver<Message>,
    rest: Bytes,
    ended: bool,
    /// Why the blob couldn't be written; the reader's error is only its shadow.
    failure: Option<corten_content::Error>,
}

impl Tee {
    /// Takes the next chunk; false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        while self.rest.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Message::Bytes(bytes)) => {
                    if let Err(error) = self.writer.append(&bytes) {
                        self.failure = Some(error);
                        return Err(io::Error::other("the blob can't be stored"));
                    }
                    self.rest = bytes;
                }
                Some(Message::End) => self.ended = true,
                None => {
                    return Err(io::Error::new(
                        io::ErrorKind::ConnectionAborted,
                        "the download was given up",
                    ));
                }
            }
        }
        Ok(!self.rest.is_empty())
    }

    /// Writes what nobody reads any more. A download that was given up ends it.
    fn drain(&mut self) -> Result<(), corten_content::Error> {
        while self.advance().unwrap_or(false) {
            self.rest = Bytes::new();
        }
        self.failure.take().map_or(Ok(()), Err)
    }
}

impl Read for Tee {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.advance()? {
            return Ok(0);
        }
        let take = buffer.len().min(self.rest.len());
        if let (Some(to), from) = (buffer.get_mut(..take), self.rest.split_to(take)) {
            to.copy_from_slice(&from);
        }
        Ok(take)
    }
}

/// Counts what is unpacked.
struct Metered<R> {
    reader: R,
    meter: Arc<Meter>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.meter.extract(read);
        Ok(read)
    }
}
