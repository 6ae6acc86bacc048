//! Finding, removing, and what stays.

use anyhow::{Context, Result};
use corten_image::Images;
use integration_image::{bulky, config, expect_no_content, mounted, open, pull, sample};
use integration_support::{Compression, Registry, RegistryOptions, Scope, require_program, require_root};

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_found_by_all_its_names() -> Result<()> {
    if !require_root() || !require_program("docker-registry") {
        return Ok(());
    }
    let scope = Scope::new("names")?;
    let registry = Registry::start(&scope, &RegistryOptions::default())?;
    let pushed = sample(Compression::Gzip).push(registry.address(), "x", "latest", None)?;
    let images = open(scope.path("root")).await?;
    pull(&images, &pushed.reference).await?;
    let short = pushed.reference.strip_suffix(":latest").context("a tag")?;
    let hex = pushed.id.strip_prefix("sha256:").context("a digest")?;
    let both = format!("{}@{}", pushed.reference, pushed.digest);
    for name in [&pushed.reference, short, &pushed.by_digest, &both, &pushed.id, hex, &hex[..12]] {
        let image = images.get(name).await?.with_context(|| format!("{name} isn't found"))?;
        assert_eq!(image.id, pushed.id, "{name}");
    }
    for name in [&hex[..11], "x", &pushed.digest, "!", "", &format!("{short}:other")] {
        assert!(images.get(name).await?.is_none(), "{name} is found");
    }
    drop(registry);
    scope.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_leaves_nothing_on_disk_but_what_others_need() -> Result<()> {
    if !require_root() || !require_program("docker-registry") {
        return Ok(());
    }
    let scope = Scope::new("removal")?;
    let registry = Registry::start(&scope, &RegistryOptions::default())?;
    let one = bulky(2, 100_000).push(registry.address(), "one", "v1", None)?;
    let also = bulky(2, 100_000).push(registry.address(), "also", "v1", None)?;
    let two = bulky(3, 100_000).push(registry.address(), "two", "v1", None)?;
    let images = open(scope.path("root")).await?;
    for reference in [&one.reference, &also.reference, &two.reference] {
        pull(&images, reference).await?;
    }
    let removed = images.remove(&one.reference).await?;
    assert_eq!(removed.names.len(), 4, "two tags and two digests: {removed:?}");
    assert_eq!(images.remove(&one.reference).await?, corten_image::Removed::default());
    assert!(images.get(&also.reference).await?.is_none());

    // The layers they shared are still whole.
    let image = images.get(&two.reference).await?.context("the other image is gone")?;
    let mounts = images.prepare("c", &image).await?;
    let count = |path: &std::path::Path| Ok(integration_image::files(path)?.len());
    assert_eq!(mounted(&mounts, &scope.path("mnt"), count)?, 3);

    // A container keeps its file system when its image goes.
    images.remove(&two.id).await?;
    assert!(images.list().await?.is_empty());
    assert_eq!(images.mounts("c").await?, mounts);
    assert_eq!(mounted(&mounts, &scope.path("mnt"), count)?, 3);
    assert!(images.usage("c").await?.inodes > 0 && images.fs_info().await?.used_bytes > 300_000);

    images.remove_snapshot("c").await?;
    images.remove_snapshot("c").await?;
    images.gc().await?;
    expect_no_content(&scope.path("root"))?;
    drop(registry);
    scope.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moves_takes_its_name_along() -> Result<()> {
    if !require_root() || !require_program("docker-registry") {
        return Ok(());
    }
    let scope = Scope::new("moves")?;
    let registry = Registry::start(&scope, &RegistryOptions::default())?;
    let images = open(scope.path("root")).await?;
    let old = bulky(1, 1000).push(registry.address(), "x", "v1", None)?;
    pull(&images, &old.reference).await?;
    let new = bulky(2, 1000).push(registry.address(), "x", "v1", None)?;
    assert_eq!(pull(&images, &new.reference).await?.id, new.id);
    let left = images.get(&old.id).await?.context("the old image is gone")?;
    assert_eq!((left.repo_tags.len(), left.repo_digests), (0, vec![old.by_digest]));
    drop(registry);
    scope.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_layers_can_be_thrown_away() -> Result<()> {
    if !require_root() || !require_program("docker-registry") {
        return Ok(());
    }
    let scope = Scope::new("discard")?;
    let registry = Registry::start(&scope, &RegistryOptions::default())?;
    let pushed = bulky(2, 100_000).push(registry.address(), "x", "v1", None)?;
    let mut settings = config(scope.path("root"));
    settings.discard_unpacked_layers = true;
    let images = Images::open(settings).await?;
    for _ in 0..2 {
        pull(&images, &pushed.reference).await?;
        let blobs = integration_image::files(&scope.path("root/content/blobs"))?;
        assert_eq!(blobs.len(), 2, "the manifest and the configuration: {blobs:?}");
    }
    drop(registry);
    scope.finish()
}
