//! The contract that every driver keeps.

use std::fmt;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::{Mount, Result, Usage};

/// Keeps directory trees that build on one another.
///
/// # Vocabulary
///
/// A *snapshot* is a state of a directory tree. It stores what differs from its
/// *parent*, another snapshot, or everything if it has none. How it is stored
/// (a layer of its own, a full copy) is the driver's business: see [`Layering`].
///
/// Snapshots are of three [kinds](Kind):
///
/// - An *active* snapshot can be written to. The caller names it by a *key* of its
///   choice, say, a container's id.
/// - A *view* is a read-only look at its parent. It has a key too.
/// - A *committed* snapshot doesn't change any more. It has a *name*, and only it can be a
///   parent. The image library uses chain ids as names, so that images share layers.
///
/// Keys and names are one namespace: any of them finds a snapshot. They are
/// opaque text of 1 to 1024 bytes.
///
/// # The life of an image and a container
///
/// 1. `prepare("unpack-1", None)` makes an empty active snapshot. The first layer is
///    written into [`directory("unpack-1")`](Self::directory).
/// 2. `commit("sha256:a", "unpack-1")` freezes it. The key is free again, the name is taken.
/// 3. `prepare("unpack-2", Some("sha256:a"))`, write, `commit("sha256:b", "unpack-2")`: the next layer.
///    Where layers are [stacked](Layering::Stacked) they needn't wait for one another: `prepare("unpack-2", None)`
///    at any time, and `commit_onto("sha256:b", "unpack-2", Some("sha256:a"))` when the parent is there.
/// 4. `prepare("container", Some("sha256:b"))` returns the mounts of a container's root file system.
///    After a restart of the program, [`mounts("container")`](Self::mounts) returns the same.
/// 5. `remove("container")` when its mounts are gone, then `remove("sha256:b")`, then `remove("sha256:a")`:
///    children before parents.
///
/// # What holds after a crash
///
/// Each operation takes effect as a whole or not at all, even if the process is
/// killed in the middle. What a killed operation leaves behind isn't visible by
/// any key and is swept by [`cleanup`](Self::cleanup), which programs call at their start.
///
/// # Sharing
///
/// All methods may be called from several threads at once. Operations on different keys don't wait for one another's disk work.
/// Of two concurrent calls that create the same key, one gets [`Exists`](crate::Error::Exists). A driver's root directory belongs to one process.
pub trait Snapshotter: Send + Sync + fmt::Debug {
    /// Whether snapshots are stored as differences or as whole trees.
    fn layering(&self) -> Layering;

    /// Creates an active snapshot and returns the mounts that make it visible.
    ///
    /// Before: `key` is free, and `parent`, if given, is committed. After: `key` is active, with an empty difference to its parent.
    ///
    /// # Errors
    ///
    /// `Exists`, `NotFound` for the parent, `ParentNotCommitted`, `BadKey`, `TooManyLayers`, or what the file system says. Then nothing has changed.
    fn prepare(&self, key: &str, parent: Option<&str>) -> Result<Vec<Mount>>;

    /// Creates a read-only view of `parent` and returns its mounts. As [`prepare`](Self::prepare) otherwise.
    ///
    /// # Errors
    ///
    /// As of [`prepare`](Self::prepare).
    fn view(&self, key: &str, parent: Option<&str>) -> Result<Vec<Mount>>;

    /// The mounts of an active snapshot or a view, the same that its creation returned.
    ///
    /// They are data: nothing is mounted, and mounting and unmounting is the caller's. They stay valid until the snapshot is removed or
    /// committed. One active snapshot must not be mounted twice at a time.
    ///
    /// # Errors
    ///
    /// `NotFound`; `WrongKind` for a committed snapshot: look at it through a view.
    fn mounts(&self, key: &str) -> Result<Vec<Mount>>;

    /// The directory into which a layer is written: the difference itself where layers are stacked, the whole tree where they are
    /// merged. See [`Layering`] for how deletions are expressed there.
    ///
    /// # Errors
    ///
    /// `NotFound`, or `WrongKind` if a view has none of its own.
    fn directory(&self, key: &str) -> Result<PathBuf>;

    /// The directories of a committed snapshot and its ancestors, the topmost first: what a layer above may borrow from.
    /// A driver with [merged](Layering::Merged) trees returns one.
    ///
    /// # Errors
    ///
    /// `NotFound`, or `ParentNotCommitted`.
    fn lowers(&self, name: &str) -> Result<Vec<PathBuf>>;

    /// Turns the active snapshot `key` into the committed snapshot `name`, with the parent it was prepared with.
    ///
    /// Before: `key` is active, no longer written to, and not mounted; `name` is free. After: `key` is free,
    /// `name` is committed.
    ///
    /// # Errors
    ///
    /// `NotFound`, `WrongKind`, `Exists` for the name. Then `key` is as it was.
    fn commit(&self, name: &str, key: &str) -> Result<()>;

    /// As [`commit`](Self::commit), but with another parent than the key was prepared with.
    ///
    /// # Errors
    ///
    /// As of `commit`; errors of the parent as of [`prepare`](Self::prepare); `CantRebase` where trees are [merged](Layering::Merged),
    /// unless the parent is the one it was prepared with.
    fn commit_onto(&self, name: &str, key: &str, parent: Option<&str>) -> Result<()>;

    /// Removes a snapshot of any kind. Removing what isn't there succeeds, so that a retry does.
    ///
    /// The snapshot is gone when this returns, its disk space a little later: [`cleanup`](Self::cleanup) waits for that.
    ///
    /// # Errors
    ///
    /// `HasChildren`. Then nothing has changed.
    fn remove(&self, key: &str) -> Result<()>;

    /// What is known of a snapshot, or `None` if there is none.
    fn stat(&self, key: &str) -> Option<Info>;

    /// The disk space that the snapshot takes without its parents. Measured anew for active snapshots, remembered for committed ones; a
    /// view takes none.
    ///
    /// # Errors
    ///
    /// `NotFound`, or what the file system says.
    fn usage(&self, key: &str) -> Result<Usage>;

    /// All snapshots at one moment, sorted by key.
    fn walk(&self) -> Vec<Info>;

    /// Gives back the disk space of what was removed or left behind by a killed process.
    ///
    /// # Errors
    ///
    /// What the file system says, after trying everything.
    fn cleanup(&self) -> Result<Reclaimed>;
}

/// How a driver stores what builds on one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layering {
    /// Each snapshot's directory holds only the difference, with overlayfs' whiteouts. Layers can be unpacked side
    /// by side and committed in order.
    Stacked {
        /// Opaque directories are marked in `user.overlay.*` instead of `trusted.overlay.*` attributes.
        user_xattr: bool,
    },
    /// Each snapshot's directory holds the whole tree: deletions are carried out, and layers are unpacked one after another.
    Merged,
}

/// What a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Writable.
    Active,
    /// A read-only look at its parent.
    View,
    /// Immutable; can be a parent.
    Committed,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Active => "active",
            Kind::View => "a view",
            Kind::Committed => "committed",
        })
    }
}

/// What is known of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Its key, or its name if it is committed.
    pub key: String,
    /// What it is.
    pub kind: Kind,
    /// The name of the snapshot that it builds on.
    pub parent: Option<String>,
    /// When it was prepared.
    pub created: SystemTime,
}

/// What [`Snapshotter::cleanup`] gave back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reclaimed {
    /// Trees removed.
    pub trees: u64,
}
