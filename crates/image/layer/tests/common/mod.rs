//! Makes archives, honest and hostile, and looks at what became of them.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use corten_layer::{Applied, ApplyOptions, Error, Whiteouts};
use tar::{EntryType, Header};

/// An archive being written byte by byte: names are taken as they are.
#[derive(Default, Clone)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Tar {
        Tar::default()
    }

    pub(crate) fn header(kind: EntryType, name: &[u8], size: u64) -> Header {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(u64::from(nix::unistd::geteuid().as_raw()));
        header.set_gid(u64::from(nix::unistd::getegid().as_raw()));
        header.set_mtime(1_000_000_000);
        header.set_size(size);
        header
    }

    /// Any entry, its checksum set.
    pub(crate) fn entry(mut self, mut header: Header, data: &[u8]) -> Tar {
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, data: &str) -> Tar {
        let header = Tar::header(EntryType::Regular, name.as_bytes(), data.len() as u64);
        self.entry(header, data.as_bytes())
    }

    pub(crate) fn directory(self, name: &str) -> Tar {
        self.entry(Tar::header(EntryType::Directory, name.as_bytes(), 0), b"")
    }

    pub(crate) fn link(self, kind: EntryType, name: &str, target: &str) -> Tar {
        let mut header = Tar::header(kind, name.as_bytes(), 0);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.entry(header, b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Tar {
        self.link(EntryType::Symlink, name, target)
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Tar {
        self.link(EntryType::Link, name, target)
    }

    pub(crate) fn whiteout(self, name: &str) -> Tar {
        self.file(name, "")
    }

    /// A PAX header for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            content.extend_from_slice(format!("{length} {key}=").as_bytes());
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        self.entry(Tar::header(EntryType::XHeader, b"pax", content.len() as u64), &content)
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).expect("compress");
    encoder.finish().expect("compress")
}

/// A target with a neighbour that no layer may touch.
pub(crate) struct Place {
    directory: tempfile::TempDir,
    before: BTreeMap<PathBuf, String>,
}

impl Place {
    pub(crate) fn new() -> Place {
        let directory = tempfile::tempdir().expect("temporary directory");
        let outside = directory.path().join("outside");
        fs::create_dir_all(outside.join("d")).expect("mkdir");
        fs::write(outside.join("secret"), "secret").expect("write");
        fs::create_dir(directory.path().join("target")).expect("mkdir");
        let before = list(&outside);
        Place { directory, before }
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.directory.path().join("target")
    }

    pub(crate) fn outside(&self) -> PathBuf {
        self.directory.path().join("outside")
    }

    /// Applies an archive, and sees that nothing outside the target has changed.
    pub(crate) fn apply(&self, archive: &[u8], options: &ApplyOptions) -> Result<Applied, Error> {
        let result = corten_layer::apply(archive, &self.target(), options);
        assert_eq!(list(&self.outside()), self.before, "something outside the target was touched");
        assert_eq!(
            fs::read_dir(self.directory.path()).expect("list").count(),
            2,
            "something appeared beside it"
        );
        result
    }

    /// Applies to a tree that holds the layers below already: needs no privileges.
    pub(crate) fn merge(&self, archive: &[u8]) -> Result<Applied, Error> {
        self.apply(archive, &merged())
    }

    /// Names in the target, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        list(&self.target()).into_keys().map(|path| path.display().to_string()).collect()
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.target().join(path)).expect("read")
    }
}

pub(crate) fn merged() -> ApplyOptions {
    ApplyOptions { whiteouts: Whiteouts::Merge, ..ApplyOptions::default() }
}

/// Everything about a tree that a layer carries: path → kind, mode, owner, times, device, content, attributes, and which names share an inode.
pub(crate) fn list(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    walk(root, root, &mut found, &mut inodes);
    found
}

fn walk(
    root: &Path,
    path: &Path,
    found: &mut BTreeMap<PathBuf, String>,
    inodes: &mut BTreeMap<u64, PathBuf>,
) {
    let metadata = fs::symlink_metadata(path).expect("stat");
    let name = path.strip_prefix(root).expect("beneath the root").to_owned();
    let mut text = format!(
        "{:o} {}:{} {}.{:09} rdev={}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.rdev()
    );
    for attribute in corten_sys::xattr::llist(path).expect("attributes") {
        let value = corten_sys::xattr::lget(path, &attribute).expect("attribute");
        text += &format!(" {}={value:?}", attribute.escape_ascii());
    }
    if metadata.is_symlink() {
        text += &format!(
            " -> {:?}",
            fs::read_link(path).expect("readlink").as_os_str().as_bytes().escape_ascii().to_string()
        );
    } else if metadata.is_file() {
        text += &format!(" {:?}", fs::read(path).expect("read").escape_ascii().to_string());
        let first = inodes.entry(metadata.ino()).or_insert_with(|| name.clone());
        text += &format!(" same as {}", first.display());
    }
    // The root's own name is empty: it is looked at too, but as an entry of its own.
    if !name.as_os_str().is_empty() {
        found.insert(name, text);
    }
    if metadata.is_dir() {
        let mut items: Vec<_> =
            fs::read_dir(path).expect("list").map(|item| item.expect("item").path()).collect();
        items.sort();
        for item in items {
            walk(root, &item, found, inodes);
        }
    }
}
