//! Images made on the spot and pushed over plain HTTP.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::http::Request;
use crate::rootfs;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// Which format the manifest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestFormat {
    /// An OCI image manifest.
    Oci,
    /// A Docker schema 2 manifest.
    Docker,
    /// An OCI index over one manifest for us and one for another platform.
    OciIndex,
    /// A Docker manifest list over the same.
    DockerList,
}

/// What one entry of a layer is.
#[derive(Debug, Clone)]
pub enum LayerEntry {
    /// A directory with a mode.
    Dir(String, u32),
    /// A file with a mode and its bytes.
    File(String, u32, Vec<u8>),
    /// A symbolic link and its target.
    Symlink(String, String),
    /// A hard link and its target.
    Hardlink(String, String),
    /// A file with an owner.
    Owned(String, u32, u64, u64, Vec<u8>),
    /// A character device with major and minor number.
    CharDevice(String, u32, u32),
    /// A file with an extended attribute.
    Xattr(String, String, Vec<u8>),
}

/// An image in the making.
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    layers: Vec<(Vec<LayerEntry>, Compression)>,
    config: Value,
    format: ManifestFormat,
}

/// What a push yielded.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// `host:port/name:tag`.
    pub reference: String,
    /// `host:port/name@sha256:...` of what the tag points to.
    pub by_digest: String,
    /// The digest of what the tag points to.
    pub digest: String,
    /// The image id: the digest of the configuration.
    pub id: String,
    /// The digests of the compressed layers.
    pub layers: Vec<String>,
}

impl ImageBuilder {
    /// An image without layers for linux/amd64 (or what this machine is).
    #[must_use]
    pub fn empty() -> Self {
        let config = json!({
            "architecture": architecture(), "os": "linux",
            "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "WorkingDir": "/"},
        });
        Self { layers: Vec::new(), config, format: ManifestFormat::Oci }
    }

    /// The workload as `/bin/workload` and a minimal /etc; runs `workload sleep` unless told otherwise.
    ///
    /// # Errors
    /// When the workload hasn't been built.
    pub fn workload() -> Result<Self> {
        let image = Self::empty().layer(base_entries()?, Compression::Gzip);
        Ok(image.config("Entrypoint", json!(["/bin/workload"])).config("Cmd", json!(["sleep"])))
    }

    /// busybox with its applets, and the workload.
    ///
    /// # Errors
    /// When busybox-static isn't installed or the workload hasn't been built.
    pub fn busybox() -> Result<Self> {
        let busybox = rootfs::busybox()?;
        let mut entries = base_entries()?;
        entries.push(LayerEntry::File("bin/busybox".into(), 0o755, fs::read(&busybox)?));
        for applet in rootfs::applets(&busybox)? {
            entries.push(LayerEntry::Symlink(format!("bin/{applet}"), "busybox".into()));
        }
        Ok(Self::empty().layer(entries, Compression::Gzip).config("Cmd", json!(["/bin/sh"])))
    }

    /// Adds a layer.
    #[must_use]
    pub fn layer(mut self, entries: Vec<LayerEntry>, compression: Compression) -> Self {
        self.layers.push((entries, compression));
        self
    }

    /// Compresses all layers so far in this way.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.layers.iter_mut().for_each(|l| l.1 = compression);
        self
    }

    /// Sets a member of the configuration's `config` object (`Cmd`, `User`, `StopSignal`...).
    #[must_use]
    pub fn config(mut self, key: &str, value: Value) -> Self {
        self.config["config"][key] = value;
        self
    }

    /// The manifest's format; OCI unless set.
    #[must_use]
    pub fn format(mut self, format: ManifestFormat) -> Self {
        self.format = format;
        self
    }

    /// Builds the image and pushes it as `name:tag`; `auth` is a user and a password.
    ///
    /// # Errors
    /// When the registry refuses something.
    pub fn push(
        &self,
        registry: SocketAddr,
        name: &str,
        tag: &str,
        auth: Option<(&str, &str)>,
    ) -> Result<Pushed> {
        let push = Push { registry, name, auth };
        let (mut diff_ids, mut layers) = (Vec::new(), Vec::new());
        for (entries, compression) in &self.layers {
            let tar = tar(entries)?;
            diff_ids.push(digest(&tar));
            let blob = compress(&tar, *compression)?;
            layers.push(push.blob(self.layer_type(*compression), &blob)?);
        }
        let mut config = self.config.clone();
        config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
        let config = push.blob(self.config_type(), &serde_json::to_vec(&config)?)?;
        let manifest = json!({"schemaVersion": 2, "mediaType": self.manifest_type(), "config": config, "layers": layers});
        let bytes = serde_json::to_vec(&manifest)?;
        let digest = match self.index_type() {
            None => push.manifest(tag, self.manifest_type(), &bytes)?,
            Some(index_type) => {
                let ours = push.manifest(&digest(&bytes), self.manifest_type(), &bytes)?;
                let index = push.index(index_type, self.manifest_type(), &ours, bytes.len(), &manifest)?;
                push.manifest(tag, index_type, &serde_json::to_vec(&index)?)?
            }
        };
        Ok(Pushed {
            reference: format!("{registry}/{name}:{tag}"),
            by_digest: format!("{registry}/{name}@{digest}"),
            digest,
            id: text(&config["digest"]),
            layers: layers.iter().map(|l| text(&l["digest"])).collect(),
        })
    }

    fn docker(&self) -> bool {
        matches!(self.format, ManifestFormat::Docker | ManifestFormat::DockerList)
    }

    fn layer_type(&self, compression: Compression) -> &'static str {
        match (self.docker(), compression) {
            (true, Compression::None) => "application/vnd.docker.image.rootfs.diff.tar",
            (true, Compression::Gzip) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (true, Compression::Zstd) => "application/vnd.docker.image.rootfs.diff.tar.zstd",
            (false, Compression::None) => "application/vnd.oci.image.layer.v1.tar",
            (false, Compression::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (false, Compression::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    fn config_type(&self) -> &'static str {
        if self.docker() { "application/vnd.docker.container.image.v1+json" } else { OCI_CONFIG }
    }

    fn manifest_type(&self) -> &'static str {
        if self.docker() {
            "application/vnd.docker.distribution.manifest.v2+json"
        } else {
            "application/vnd.oci.image.manifest.v1+json"
        }
    }

    fn index_type(&self) -> Option<&'static str> {
        match self.format {
            ManifestFormat::OciIndex => Some("application/vnd.oci.image.index.v1+json"),
            ManifestFormat::DockerList => Some("application/vnd.docker.distribution.manifest.list.v2+json"),
            ManifestFormat::Oci | ManifestFormat::Docker => None,
        }
    }
}

const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// The architecture's name in images.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// `sha256:...` of some bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().fold(String::from("sha256:"), |text, byte| text + &format!("{byte:02x}"))
}

fn base_entries() -> Result<Vec<LayerEntry>> {
    let mut entries: Vec<_> =
        ["bin", "etc", "home", "proc", "root", "sys", "dev", "var", "run", "usr", "usr/bin"]
            .iter()
            .map(|dir| LayerEntry::Dir((*dir).to_owned(), 0o755))
            .collect();
    entries.push(LayerEntry::Dir("tmp".into(), 0o1777));
    entries.push(LayerEntry::File("etc/passwd".into(), 0o644, rootfs::PASSWD.into()));
    entries.push(LayerEntry::File("etc/group".into(), 0o644, rootfs::GROUP.into()));
    entries.push(LayerEntry::File("bin/workload".into(), 0o755, fs::read(crate::binary("workload")?)?));
    Ok(entries)
}

/// A tar with these entries; all times are one fixed second, so that digests are stable.
///
/// # Errors
/// When a path doesn't fit into a tar.
pub fn tar(entries: &[LayerEntry]) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        append(&mut builder, entry)?;
    }
    builder.into_inner().context("finish the tar")
}

fn append(builder: &mut tar::Builder<Vec<u8>>, entry: &LayerEntry) -> Result<()> {
    use tar::EntryType as T;
    let mut header = tar::Header::new_gnu();
    header.set_mtime(1_600_000_000);
    header.set_uid(0);
    header.set_gid(0);
    let no_data: &[u8] = &[];
    let (path, kind, mode, data) = match entry {
        LayerEntry::Dir(path, mode) => (path, T::Directory, *mode, no_data),
        LayerEntry::File(path, mode, data) => (path, T::Regular, *mode, data.as_slice()),
        LayerEntry::Symlink(path, _) => (path, T::Symlink, 0o777, no_data),
        LayerEntry::Hardlink(path, _) => (path, T::Link, 0o644, no_data),
        LayerEntry::Owned(path, mode, uid, gid, data) => {
            header.set_uid(*uid);
            header.set_gid(*gid);
            (path, T::Regular, *mode, data.as_slice())
        }
        LayerEntry::CharDevice(path, major, minor) => {
            header.set_device_major(*major)?;
            header.set_device_minor(*minor)?;
            (path, T::Char, 0o666, no_data)
        }
        LayerEntry::Xattr(path, name, value) => {
            let key = format!("SCHILY.xattr.{name}");
            builder.append_pax_extensions([(key.as_str(), value.as_slice())])?;
            (path, T::Regular, 0o644, no_data)
        }
    };
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(data.len() as u64);
    match entry {
        LayerEntry::Symlink(path, target) | LayerEntry::Hardlink(path, target) => {
            builder.append_link(&mut header, path, target).with_context(|| format!("add link {path}"))
        }
        // The tar crate refuses `..`; a hostile layer has it, so the name goes into the header as it is.
        _ if path.contains("..") || path.starts_with('/') => {
            if let Some(name) = header.as_old_mut().name.get_mut(..path.len()) {
                name.copy_from_slice(path.as_bytes());
            }
            header.set_cksum();
            builder.append(&header, data).with_context(|| format!("add {path}"))
        }
        _ => builder.append_data(&mut header, path, data).with_context(|| format!("add {path}")),
    }
}

fn compress(tar: &[u8], compression: Compression) -> Result<Vec<u8>> {
    Ok(match compression {
        Compression::None => tar.to_vec(),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(tar)?;
            encoder.finish()?
        }
        Compression::Zstd => zstd::encode_all(tar, 1)?,
    })
}

/// One push to one repository.
struct Push<'a> {
    registry: SocketAddr,
    name: &'a str,
    auth: Option<(&'a str, &'a str)>,
}

impl Push<'_> {
    fn send(&self, request: Request, expect: u16) -> Result<crate::http::Response> {
        let request = match self.auth {
            Some((user, password)) => {
                let token = base64(format!("{user}:{password}").as_bytes());
                request.header("authorization", &format!("Basic {token}"))
            }
            None => request,
        };
        let response = request.send(self.registry)?;
        if response.status != expect {
            bail!("{} {}: {} {}", request.method, request.target, response.status, response.text());
        }
        Ok(response)
    }

    /// Uploads a blob and yields its descriptor.
    fn blob(&self, media_type: &str, bytes: &[u8]) -> Result<Value> {
        let digest = digest(bytes);
        let start = self.send(Request::new("POST", &format!("/v2/{}/blobs/uploads/", self.name)), 202)?;
        let location = start.header("location").context("no upload location")?;
        // The location may be absolute; only its path matters here.
        let path = match location.split_once("://") {
            Some((_, rest)) => rest.find('/').and_then(|i| rest.get(i..)).context("upload location")?,
            None => location,
        };
        let separator = if path.contains('?') { '&' } else { '?' };
        let request = Request::new("PUT", &format!("{path}{separator}digest={digest}"));
        self.send(request.header("content-type", "application/octet-stream").body(bytes), 201)?;
        Ok(json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}))
    }

    /// Uploads a manifest under a tag or digest and yields its digest.
    fn manifest(&self, reference: &str, media_type: &str, bytes: &[u8]) -> Result<String> {
        let request = Request::new("PUT", &format!("/v2/{}/manifests/{reference}", self.name));
        self.send(request.header("content-type", media_type).body(bytes), 201)?;
        Ok(digest(bytes))
    }

    /// An index whose first entry is for a platform that this machine isn't, so that a careless client errs.
    fn index(
        &self,
        kind: &str,
        manifest_type: &str,
        ours: &str,
        size: usize,
        manifest: &Value,
    ) -> Result<Value> {
        let mut other = manifest.clone();
        other["annotations"] = json!({"for": "another platform"});
        let other = serde_json::to_vec(&other)?;
        let foreign = self.manifest(&digest(&other), manifest_type, &other)?;
        Ok(json!({"schemaVersion": 2, "mediaType": kind, "manifests": [
            {"mediaType": manifest_type, "digest": foreign, "size": other.len(),
             "platform": {"os": "linux", "architecture": "s390x"}},
            {"mediaType": manifest_type, "digest": ours, "size": size,
             "platform": {"os": "linux", "architecture": architecture()}},
        ]}))
    }
}

/// Standard base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = usize::try_from(word >> (18 - 6 * i) & 63).unwrap_or_default();
            let digit = ALPHABET.get(digit).copied().unwrap_or(b'=');
            text.push(char::from(if i > chunk.len() { b'=' } else { digit }));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads() {
        assert_eq!(base64(b"user:pass"), "dXNlcjpwYXNz");
        assert_eq!(base64(b"a"), "YQ==");
        assert_eq!(base64(b"ab"), "YWI=");
    }

    #[test]
    fn tar_keeps_hostile_names() {
        let bytes = tar(&[LayerEntry::File("../../escape".into(), 0o644, b"x".to_vec())]).unwrap();
        assert!(bytes.starts_with(b"../../escape\0"));
    }
}
