//! What the image library's tests share: a library in a scope, images to pull, and a registry that lies on demand.
#![forbid(unsafe_code)]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use corten_image::{Config, Image, Images, Mount, PullOptions};
use integration_support::http::{Request, Response, Server};
use integration_support::{Compression, ImageBuilder, LayerEntry};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A library's configuration that fails fast.
#[must_use]
pub fn config(root: impl Into<PathBuf>) -> Config {
    let mut config = Config::new(root);
    config.registries.backoff = Duration::from_millis(5);
    config.registries.read_timeout = Duration::from_secs(10);
    config
}

/// Opens a library.
///
/// # Errors
/// What the library says.
pub async fn open(root: impl Into<PathBuf>) -> Result<Images> {
    Ok(Images::open(config(root)).await?)
}

/// Pulls without credentials.
///
/// # Errors
/// What the library says.
pub async fn pull(images: &Images, reference: &str) -> corten_image::Result<Image> {
    images.pull(reference, PullOptions::default()).await
}

/// An error with all its causes in one line.
#[must_use]
pub fn chain(error: &corten_image::Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

/// An image of three layers in which the upper ones change and remove what the lower ones hold.
#[must_use]
pub fn sample(compression: Compression) -> ImageBuilder {
    use LayerEntry as E;
    let below = vec![
        E::Dir("etc".into(), 0o755),
        E::File("etc/keep".into(), 0o644, b"kept".to_vec()),
        E::File("etc/change".into(), 0o644, b"old".to_vec()),
        E::File("etc/remove".into(), 0o644, b"gone".to_vec()),
        E::Dir("opaque".into(), 0o700),
        E::File("opaque/below".into(), 0o644, b"hidden".to_vec()),
    ];
    let middle = vec![
        E::File("etc/change".into(), 0o600, b"new".to_vec()),
        E::File("etc/.wh.remove".into(), 0o644, Vec::new()),
        E::Symlink("link".into(), "etc/keep".into()),
        E::Owned("owned".into(), 0o644, 1000, 1001, b"mine".to_vec()),
    ];
    let above = vec![
        E::Dir("opaque".into(), 0o700),
        E::File("opaque/.wh..wh..opq".into(), 0o644, Vec::new()),
        E::File("opaque/above".into(), 0o644, b"seen".to_vec()),
    ];
    ImageBuilder::empty().layer(below, compression).layer(middle, compression).layer(above, compression)
}

/// An image of `layers` layers with a file of `size` bytes each, which no compression makes smaller.
#[must_use]
pub fn bulky(layers: u8, size: usize) -> ImageBuilder {
    (0..layers).fold(ImageBuilder::empty(), |image, n| {
        let file = LayerEntry::File(format!("file{n}"), 0o644, noise(n, size));
        image.layer(vec![file], Compression::Gzip)
    })
}

/// Bytes that look random and are the same each time.
#[must_use]
pub fn noise(seed: u8, size: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 0x9e37_79b9_7f4a_7c15;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(size).collect()
}

/// Mounts a container's file system as the library says, runs `look`, and unmounts it.
///
/// # Errors
/// When it can't be mounted, and what `look` fails with.
pub fn mounted<T>(mounts: &[Mount], at: &Path, look: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    fs::create_dir_all(at)?;
    let [only] = mounts else { bail!("expected one mount, got {mounts:?}") };
    let data = only.options.join(",");
    let bind = only.fs_type == "bind";
    let flags = if bind { MsFlags::MS_BIND } else { MsFlags::empty() };
    mount(Some(&only.source), at, Some(only.fs_type.as_str()), flags, Some(data.as_str()).filter(|_| !bind))
        .with_context(|| format!("mount {only:?}"))?;
    let result = look(at);
    umount2(at, MntFlags::MNT_DETACH).context("unmount")?;
    result
}

/// Regular files, links and devices below a directory, relative to it.
///
/// # Errors
/// When a directory can't be read.
pub fn files(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut stack = vec![root.to_owned()];
    while let Some(directory) = stack.pop() {
        for entry in fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                stack.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(root)?.display().to_string());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Proves that neither blobs nor anything of an image's files are left in a library's root.
///
/// # Errors
/// The list of what is left.
pub fn expect_no_content(root: &Path) -> Result<()> {
    let blobs = files(&root.join("content"))?;
    // The snapshotter's own records lie beside the trees; what a layer holds doesn't.
    let trees: Vec<_> = files(&root.join("snapshots"))?.into_iter().filter(|f| f.contains("/fs/")).collect();
    if blobs.is_empty() && trees.is_empty() {
        return Ok(());
    }
    bail!("left behind: {blobs:?} {trees:?}")
}

type Fault = dyn Fn(&Request, Response) -> Response + Send + Sync;

/// Stands before a registry, counts what is asked for, and changes answers.
pub struct Proxy {
    server: Server,
    seen: Arc<Mutex<Vec<Request>>>,
    bytes: Arc<AtomicU64>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("address", &self.address()).finish_non_exhaustive()
    }
}

impl Proxy {
    /// A proxy before the registry at `origin`; `fault` gets each request and the registry's answer, and makes the answer to give.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(
        origin: SocketAddr,
        fault: impl Fn(&Request, Response) -> Response + Send + Sync + 'static,
    ) -> Result<Proxy> {
        let seen = Arc::<Mutex<Vec<Request>>>::default();
        let bytes = Arc::<AtomicU64>::default();
        let (seen_inside, bytes_inside, fault) =
            (seen.clone(), bytes.clone(), Arc::<Fault>::from(Box::new(fault) as Box<Fault>));
        let server = Server::start(move |request| {
            seen_inside.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
            let mut forward = request.clone();
            forward
                .headers
                .retain(|(name, _)| !matches!(name.as_str(), "host" | "connection" | "content-length"));
            let mut answer = forward.send(origin).unwrap_or_else(|e| Response::new(502, format!("{e:#}")));
            answer.headers.retain(|(name, _)| !matches!(name.as_str(), "transfer-encoding" | "connection"));
            let answer = fault(request, answer);
            bytes_inside.fetch_add(answer.body.len() as u64, Ordering::SeqCst);
            answer
        })?;
        Ok(Proxy { server, seen, bytes })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// A reference to what was pushed to the registry, by way of the proxy.
    #[must_use]
    pub fn reference(&self, name_and_tag: &str) -> String {
        format!("{}/{name_and_tag}", self.address())
    }

    /// The requests so far whose method is `method` and whose path contains `part`.
    #[must_use]
    pub fn requests(&self, method: &str, part: &str) -> Vec<Request> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|r| r.method == method && r.target.contains(part)).cloned().collect()
    }

    /// Bytes of bodies served so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }

    /// Forgets what was asked for so far.
    pub fn forget(&self) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.bytes.store(0, Ordering::SeqCst);
    }
}
