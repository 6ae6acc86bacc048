//! Turns entries into files beneath the target.
//!
//! Speed comes from doing little: consecutive entries share their parent's descriptor, new files are created with their final mode
//! and owner where these are the process's own, and what was created is looked at (one cheap fstat) and corrected only where it differs.
//! Directories get their attributes last, because writing into them changes their times.

mod attributes;
mod directory;
mod file;
mod node;
mod tree;
mod whiteout;

use std::collections::HashSet;
use std::io::{self, BufRead};
use std::path::Path;

pub(crate) use attributes::copy_attributes;
pub(crate) use tree::{Tree, file_type, is_whiteout, look, proc_path};

use crate::archive::{Archive, Entry, Kind};
use crate::name::{clean, show, split};
use crate::options::{ApplyOptions, Whiteouts};
use crate::{Error, Pending, Result};
use directory::Deferred;

/// A target being filled.
pub(crate) struct Unpacker<'a> {
    options: &'a ApplyOptions,
    tree: Tree,
    /// Directories whose attributes are still to be set, in the archive's order.
    directories: Vec<Deferred>,
    /// Where layers are merged: what this layer has created, with all parents. A whiteout doesn't apply to it.
    created: HashSet<Vec<u8>>,
    pending: Pending,
    /// The layer says what its root directory is like.
    root_listed: bool,
}

impl<'a> Unpacker<'a> {
    pub(crate) fn new(target: &Path, options: &'a ApplyOptions) -> Result<Unpacker<'a>> {
        Ok(Unpacker {
            options,
            tree: Tree::open(target)?,
            directories: Vec::new(),
            created: HashSet::new(),
            pending: Pending::default(),
            root_listed: false,
        })
    }

    /// Unpacks all entries and sets the directories' attributes.
    pub(crate) fn run<R: BufRead>(mut self, archive: &mut Archive<R>) -> Result<Pending> {
        while let Some(entry) = archive.next()? {
            self.entry(&entry, archive)?;
        }
        archive.drain()?;
        self.finish_directories()?;
        if !self.root_listed && !self.merges() {
            self.tree.implied.insert(Vec::new());
        }
        if !self.merges() {
            self.pending.directories = std::mem::take(&mut self.tree.implied).into_iter().collect();
        }
        Ok(self.pending)
    }

    fn merges(&self) -> bool {
        self.options.whiteouts == Whiteouts::Merge
    }

    fn entry<R: BufRead>(&mut self, entry: &Entry, archive: &mut Archive<R>) -> Result<()> {
        let path = clean(&entry.name, self.options.limits.depth).map_err(|reason| refused(entry, reason))?;
        if path.is_empty() {
            if entry.kind != Kind::Directory {
                return Err(refused(entry, "the layer's root can only be a directory"));
            }
            self.root_listed = true;
            return self.directory(entry, &path);
        }
        let (parent, base) = split(&path);
        if parent.split(|byte| *byte == b'/').any(|component| component.starts_with(whiteout::PREFIX)) {
            return if whiteout::is_metadata(&path) {
                Ok(())
            } else {
                Err(refused(entry, "a directory of its path is a whiteout"))
            };
        }
        if base.starts_with(whiteout::PREFIX) {
            return self.whiteout(entry, parent, base);
        }
        if self.merges() {
            self.note_created(&path);
        }
        match entry.kind {
            Kind::Directory => self.directory(entry, &path),
            Kind::File => self.file(entry, &path, archive),
            Kind::HardLink => self.hard_link(entry, &path),
            Kind::Symlink => self.symlink(entry, &path),
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => self.special(entry, &path),
        }
    }

    fn note_created(&mut self, path: &[u8]) {
        let mut path = path;
        while !path.is_empty() && self.created.insert(path.to_vec()) {
            path = split(path).0;
        }
    }
}

fn refused(entry: &Entry, reason: &str) -> Error {
    Error::Refused { entry: show(&entry.name), reason: reason.to_owned() }
}

/// Names the entry and the operation in an error of the kernel. Costs nothing where there is none.
fn at<'a, E: Into<io::Error>>(
    operation: &'static str,
    entry: &'a Entry,
) -> impl FnOnce(E) -> Error + use<'a, E> {
    move |source| Error::Entry { operation, entry: show(&entry.name), source: source.into() }
}
