//! What is pulled is what was pushed, whatever its format.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Result, ensure};
use corten_image::{Phase, Progress, PullOptions};
use integration_image::{files, mounted, open, pull, sample};
use integration_support::{
    Compression, ManifestFormat, Registry, RegistryOptions, Scope, require_program, require_root,
};
use tokio::sync::watch;

fn check_tree(root: &Path) -> Result<()> {
    assert_eq!(files(root)?, ["etc/change", "etc/keep", "link", "opaque/above", "owned"]);
    assert_eq!(fs::read_to_string(root.join("etc/change"))?, "new");
    assert_eq!(fs::read_to_string(root.join("link"))?, "kept");
    let owned = fs::metadata(root.join("owned"))?;
    assert_eq!((owned.uid(), owned.gid(), owned.mtime()), (1000, 1001, 1_600_000_000));
    assert_eq!(fs::metadata(root.join("opaque"))?.mode() & 0o7777, 0o700);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_and_compression_by_tag_and_by_digest() -> Result<()> {
    if !require_root() || !require_program("docker-registry") {
        return Ok(());
    }
    let scope = Scope::new("formats")?;
    let registry = Registry::start(&scope, &RegistryOptions::default())?;
    let formats =
        [ManifestFormat::Oci, ManifestFormat::Docker, ManifestFormat::OciIndex, ManifestFormat::DockerList];
    for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
        for format in formats {
            let name = format!("{format:?}-{compression:?}").to_lowercase();
            let pushed = sample(compression).format(format).push(registry.address(), &name, "v1", None)?;
            for reference in [&pushed.reference, &pushed.by_digest] {
                let root = scope.path(&format!("root-{name}-{}", reference.contains('@')));
                let images = open(&root).await?;
                let image = pull(&images, reference).await?;
                assert_eq!(image.id, pushed.id, "{reference}");
                assert_eq!(image.repo_digests, *std::slice::from_ref(&pushed.by_digest), "{reference}");
                let by_tag = !reference.contains('@');
                assert_eq!(image.repo_tags.contains(&pushed.reference), by_tag, "{reference}");
                ensure!(image.size > 0 && image.chain_id.is_some());
                let mounts = images.prepare("container", &image).await?;
                mounted(&mounts, &scope.path("mnt"), check_tree)?;
                images.remove_snapshot("container").await?;
            }
        }
    }
    drop(registry);
    scope.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_pull_asks_once_and_fetches_nothing() -> Result<()> {
    if !require_root() || !require_program("docker-registry") {
        return Ok(());
    }
    let scope = Scope::new("again")?;
    let registry = Registry::start(&scope, &RegistryOptions::default())?;
    let pushed = sample(Compression::Gzip).format(ManifestFormat::OciIndex).push(
        registry.address(),
        "a/b",
        "v1",
        None,
    )?;
    let proxy = integration_image::Proxy::start(registry.address(), |_, answer| answer)?;
    let images = open(scope.path("root")).await?;
    let first = pull(&images, &proxy.reference("a/b:v1")).await?;
    assert_eq!(proxy.requests("GET", "/blobs/").len(), 4, "three layers and a configuration");
    proxy.forget();
    let second = pull(&images, &proxy.reference("a/b:v1")).await?;
    assert_eq!((first.id, proxy.bytes()), (second.id, 0));
    assert_eq!(proxy.requests("HEAD", "/manifests/").len(), 1);
    assert_eq!(proxy.requests("GET", "").len(), 0);

    // Another name for the same content needs only its manifest, which is here already.
    sample(Compression::Gzip).format(ManifestFormat::OciIndex).push(
        registry.address(),
        "other",
        "v2",
        None,
    )?;
    proxy.forget();
    let other = pull(&images, &proxy.reference("other:v2")).await?;
    assert_eq!((other.id, proxy.bytes()), (pushed.id, 0));
    assert_eq!(other.repo_tags.len(), 2);

    // And all of it is known to the next process.
    drop(images);
    let images = open(scope.path("root")).await?;
    assert_eq!(images.list().await?.len(), 1);
    drop(registry);
    scope.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_ends_with_every_layer_done() -> Result<()> {
    if !require_root() || !require_program("docker-registry") {
        return Ok(());
    }
    let scope = Scope::new("progress")?;
    let registry = Registry::start(&scope, &RegistryOptions::default())?;
    let pushed = sample(Compression::Gzip).push(registry.address(), "p", "v1", None)?;
    let images = open(scope.path("root")).await?;
    let (sender, receiver) = watch::channel(Progress::default());
    let options = PullOptions { progress: Some(sender), ..PullOptions::default() };
    images.pull(&pushed.reference, options).await?;
    let last = receiver.borrow().clone();
    assert_eq!(last.reference, pushed.reference);
    let digests: Vec<_> = last.layers.iter().map(|layer| layer.digest.to_string()).collect();
    assert_eq!(digests, pushed.layers);
    for layer in &last.layers {
        assert_eq!((layer.phase, layer.downloaded, layer.extracted), (Phase::Done, layer.total, layer.total));
    }
    drop(registry);
    scope.finish()
}
