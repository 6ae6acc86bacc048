//! What manifests, indexes and configurations say, checked before anything is done with it.

use std::collections::BTreeSet;

use corten_content::Digest;
use corten_distribution::{Descriptor, media_type};
use oci_spec::image::{ImageConfiguration, ImageIndex, ImageManifest};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::{Error, Platform, Result};

/// More layers than any tool makes; overlayfs ends at 500.
const MAX_LAYERS: usize = 500;
/// Entries of an index.
const MAX_MANIFESTS: usize = 4096;

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) blob: Descriptor,
    pub(crate) diff_id: Digest,
    /// Names the snapshot of this layer over all those below.
    pub(crate) chain_id: Digest,
}

/// A manifest, for one platform.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// Reads a manifest.
pub(crate) fn manifest(image: &str, descriptor: &Descriptor, bytes: &[u8]) -> Result<Parsed> {
    check_shape(image, descriptor, bytes)?;
    let manifest: ImageManifest = json(image, "manifest", bytes)?;
    if manifest.layers().len() > MAX_LAYERS {
        return Err(bad(image, format!("its manifest has more than {MAX_LAYERS} layers")));
    }
    let config = convert(image, manifest.config())?;
    if !matches!(config.media_type.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG) {
        return Err(bad(
            image,
            format!("it's an artifact of type {}, not a container image", config.media_type),
        ));
    }
    let layers = manifest.layers().iter().map(|layer| {
        let layer = convert(image, layer)?;
        check_layer_type(image, &layer)?;
        Ok(layer)
    });
    Ok(Parsed { config, layers: layers.collect::<Result<_>>()? })
}

/// Reads an index and chooses what suits the platform best.
pub(crate) fn select(
    image: &str,
    index: &Descriptor,
    bytes: &[u8],
    platform: &Platform,
) -> Result<Descriptor> {
    check_shape(image, index, bytes)?;
    let index: ImageIndex = json(image, "index", bytes)?;
    if index.manifests().len() > MAX_MANIFESTS {
        return Err(bad(image, format!("its index has more than {MAX_MANIFESTS} entries")));
    }
    let mut best: Option<(usize, &oci_spec::image::Descriptor)> = None;
    let mut available = BTreeSet::new();
    for entry in index.manifests() {
        let rank = match entry.platform() {
            Some(offered) => {
                let offered = Platform {
                    os: offered.os().to_string(),
                    architecture: offered.architecture().to_string(),
                    variant: offered.variant().clone(),
                };
                // Attestations and the like call themselves unknown/unknown.
                if offered.os == "unknown" {
                    continue;
                }
                available.insert(offered.to_string());
                platform.rank(&offered)
            }
            // An entry that doesn't say is a last resort; its configuration is checked later anyway.
            None => Some(usize::MAX),
        };
        if let Some(rank) = rank.filter(|rank| best.is_none_or(|(least, _)| *rank < least)) {
            best = Some((rank, entry));
        }
    }
    let Some((_, entry)) = best else {
        let available = available.into_iter().collect::<Vec<_>>().join(", ");
        let available = if available.is_empty() { "none".to_owned() } else { available };
        return Err(Error::NoPlatform { image: image.to_owned(), platform: platform.clone(), available });
    };
    convert(image, entry)
}

/// Reads the configuration and ties its diffIDs to the manifest's layers.
pub(crate) fn layers(
    image: &str,
    blobs: Vec<Descriptor>,
    bytes: &[u8],
    platform: &Platform,
) -> Result<(ImageConfiguration, Vec<Layer>)> {
    let config: ImageConfiguration = json(image, "configuration", bytes)?;
    let offered = Platform {
        os: config.os().to_string(),
        architecture: config.architecture().to_string(),
        variant: config.variant().clone(),
    };
    if platform.rank(&offered).is_none() {
        let available = offered.to_string();
        return Err(Error::NoPlatform { image: image.to_owned(), platform: platform.clone(), available });
    }
    let diff_ids = config.rootfs().diff_ids();
    if diff_ids.len() != blobs.len() {
        let (promised, listed) = (diff_ids.len(), blobs.len());
        return Err(bad(image, format!("its manifest lists {listed} layers, its configuration {promised}")));
    }
    let mut layers: Vec<Layer> = Vec::with_capacity(blobs.len());
    for (blob, diff_id) in blobs.into_iter().zip(diff_ids) {
        let diff_id: Digest =
            diff_id.parse().map_err(|e: corten_content::InvalidDigest| bad(image, e.to_string()))?;
        let chain_id = match layers.last() {
            None => diff_id.clone(),
            Some(below) => Digest::sha256(format!("{} {diff_id}", below.chain_id).as_bytes()),
        };
        layers.push(Layer { blob, diff_id, chain_id });
    }
    Ok((config, layers))
}

/// Refuses documents that could be read as something else than they claim to be (CVE-2021-41190).
fn check_shape(image: &str, descriptor: &Descriptor, bytes: &[u8]) -> Result<()> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        schema_version: Option<u64>,
        media_type: Option<String>,
        manifests: Option<IgnoredAny>,
        layers: Option<IgnoredAny>,
        config: Option<IgnoredAny>,
        fs_layers: Option<IgnoredAny>,
    }
    let shape: Shape = json(image, "manifest", bytes)?;
    if shape.fs_layers.is_some() || shape.schema_version == Some(1) {
        let source = corten_distribution::Error::Schema1(image.to_owned());
        return Err(Error::Registry { image: image.to_owned(), source });
    }
    let is_index = media_type::is_index(&descriptor.media_type);
    let ambiguous = if is_index {
        shape.layers.is_some() || shape.config.is_some() || shape.manifests.is_none()
    } else {
        shape.manifests.is_some() || shape.layers.is_none() || shape.config.is_none()
    };
    if ambiguous {
        return Err(bad(image, format!("its {} doesn't look like one", descriptor.media_type)));
    }
    match shape.media_type.filter(|inside| *inside != descriptor.media_type) {
        Some(inside) => {
            Err(bad(image, format!("it was announced as {}, but says it's {inside}", descriptor.media_type)))
        }
        None => Ok(()),
    }
}

fn check_layer_type(image: &str, layer: &Descriptor) -> Result<()> {
    let kind = layer.media_type.as_str();
    if kind.ends_with("+encrypted") {
        return Err(bad(image, format!("layer {} is encrypted", layer.digest)));
    }
    let known = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ];
    // The compression in the suffix is told better by the content itself.
    let fits =
        |base: &str| kind.strip_prefix(base).is_some_and(|s| s.is_empty() || s.starts_with(['+', '.']));
    if known.iter().any(|base| fits(base)) {
        return Ok(());
    }
    Err(bad(image, format!("layer {} is of type {kind}, not a file system layer", layer.digest)))
}

fn convert(image: &str, descriptor: &oci_spec::image::Descriptor) -> Result<Descriptor> {
    let digest = descriptor.digest().to_string();
    Ok(Descriptor {
        media_type: descriptor.media_type().to_string(),
        digest: digest.parse().map_err(|e: corten_content::InvalidDigest| bad(image, e.to_string()))?,
        size: descriptor.size(),
    })
}

pub(crate) fn json<'a, T: Deserialize<'a>>(image: &str, what: &str, bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| bad(image, format!("its {what} can't be read: {e}")))
}

pub(crate) fn bad(image: &str, reason: String) -> Error {
    Error::BadImage { image: image.to_owned(), reason }
}

impl Platform {
    /// How well an offer suits: 0 is best, `None` means not at all.
    fn rank(&self, offered: &Platform) -> Option<usize> {
        if (&self.os, &self.architecture) != (&offered.os, &offered.architecture) {
            return None;
        }
        // An arm v7 runs v6 and v5, and an amd64 v3 runs v2 and v1: the best that isn't above ours.
        let level = |variant: &Option<String>| match variant.as_deref() {
            None => Some(baseline(&self.architecture)),
            Some(text) => text.strip_prefix('v').and_then(|n| n.parse::<usize>().ok()),
        };
        match (level(&self.variant), level(&offered.variant)) {
            (Some(ours), Some(theirs)) => ours.checked_sub(theirs),
            _ => (self.variant == offered.variant).then_some(0),
        }
    }
}

/// What an architecture without a variant is.
fn baseline(architecture: &str) -> usize {
    match architecture {
        "arm64" => 8,
        "arm" => 7,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const SHA: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        Platform { os: parts.next().unwrap(), architecture: parts.next().unwrap(), variant: parts.next() }
    }

    fn of(media_type: &str) -> Descriptor {
        Descriptor { media_type: media_type.to_owned(), digest: Digest::sha256(b""), size: 2 }
    }

    /// An index of these platforms; the sizes tell the entries apart.
    fn index(platforms: &[&str]) -> Vec<u8> {
        let entries: Vec<Value> = platforms
            .iter()
            .enumerate()
            .map(|(i, p)| {
                let p = platform(p);
                let mut entry = json!({"mediaType": media_type::OCI_MANIFEST, "digest": SHA, "size": i,
                    "platform": {"os": p.os, "architecture": p.architecture}});
                if let Some(variant) = p.variant {
                    entry["platform"]["variant"] = variant.into();
                }
                entry
            })
            .collect();
        let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries});
        serde_json::to_vec(&index).unwrap()
    }

    fn chosen(host: &str, platforms: &[&str]) -> Option<usize> {
        let selected = select("x", &of(media_type::OCI_INDEX), &index(platforms), &platform(host));
        selected.ok().map(|d| usize::try_from(d.size).unwrap())
    }

    #[test]
    fn the_best_platform_is_chosen() {
        assert_eq!(chosen("linux/amd64", &["linux/arm64/v8", "linux/amd64", "windows/amd64"]), Some(1));
        assert_eq!(chosen("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6", "linux/arm64"]), Some(1));
        assert_eq!(chosen("linux/arm/v6", &["linux/arm/v7", "linux/arm/v5"]), Some(1));
        assert_eq!(chosen("linux/arm64/v8", &["linux/arm64"]), Some(0));
        assert_eq!(chosen("linux/arm64/v8", &["linux/arm64/v9", "linux/arm64/v8"]), Some(1));
        assert_eq!(chosen("linux/amd64", &["linux/amd64/v3"]), None);
        assert_eq!(chosen("linux/amd64/v3", &["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"]), Some(1));
        assert_eq!(chosen("linux/amd64", &["unknown/unknown", "linux/amd64"]), Some(1));
    }

    #[test]
    fn a_missing_platform_names_what_there_is() {
        let bytes = index(&["linux/s390x", "windows/amd64", "unknown/unknown"]);
        let error =
            select("r/x:y", &of(media_type::OCI_INDEX), &bytes, &platform("linux/amd64")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "r/x:y has no manifest for linux/amd64; it has linux/s390x, windows/amd64"
        );
    }

    #[test]
    fn documents_of_two_shapes_are_refused() {
        let layer = json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": SHA, "size": 1});
        let config = json!({"mediaType": media_type::OCI_CONFIG, "digest": SHA, "size": 1});
        let good = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
        let parse =
            |value: &Value| manifest("x", &of(media_type::OCI_MANIFEST), &serde_json::to_vec(value).unwrap());
        assert!(parse(&good).is_ok());
        let mut both = good.clone();
        both["manifests"] = json!([]);
        assert!(parse(&both).is_err());
        let mut other = good.clone();
        other["mediaType"] = media_type::OCI_INDEX.into();
        assert!(parse(&other).is_err());
        let mut encrypted = good.clone();
        encrypted["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted".into();
        assert!(parse(&encrypted).unwrap_err().to_string().contains("encrypted"));
        let mut artifact = good.clone();
        artifact["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into();
        assert!(parse(&artifact).unwrap_err().to_string().contains("artifact"));
        let twice = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"layers":[{layer}]}}"#);
        assert!(manifest("x", &of(media_type::OCI_MANIFEST), twice.as_bytes()).is_err());
        let schema1 = json!({"schemaVersion": 1, "fsLayers": []});
        assert!(parse(&schema1).is_err());
    }

    #[test]
    fn chain_ids_follow_the_specification() {
        let a = Digest::sha256(b"a");
        let b = Digest::sha256(b"b");
        let config = json!({"os": "linux", "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": [a, b]}});
        let bytes = serde_json::to_vec(&config).unwrap();
        let blobs = vec![of("t"), of("t")];
        let (_, layers) = layers("x", blobs.clone(), &bytes, &platform("linux/amd64")).unwrap();
        assert_eq!(layers[0].chain_id, a);
        assert_eq!(layers[1].chain_id, Digest::sha256(format!("{a} {b}").as_bytes()));
        assert!(super::layers("x", blobs[..1].to_vec(), &bytes, &platform("linux/amd64")).is_err());
        assert!(super::layers("x", blobs, &bytes, &platform("linux/arm64")).is_err());
    }
}
