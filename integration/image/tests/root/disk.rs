//! A full disk.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use corten_image::ErrorKind;
use integration_image::{bulky, chain, open, pull};
use integration_support::{Registry, RegistryOptions, Scope, require_program, require_root};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;

/// A file system of limited size.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: PathBuf, size: &str) -> Result<Tmpfs> {
        std::fs::create_dir_all(&at)?;
        let options = format!("size={size}");
        mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .context("mount tmpfs")?;
        Ok(Tmpfs(at))
    }

    fn resize(&self, size: &str) -> Result<()> {
        let options = format!("size={size}");
        mount(None::<&str>, &self.0, None::<&str>, MsFlags::MS_REMOUNT, Some(options.as_str()))
            .context("resize tmpfs")
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).ok(); // the scope's end reports what is left
    }
}

fn used(path: &Path) -> Result<u64> {
    let stat = statvfs(path)?;
    Ok((stat.blocks() - stat.blocks_free()) * stat.fragment_size())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_given_back_and_more_room_heals_it() -> Result<()> {
    if !require_root() || !require_program("docker-registry") {
        return Ok(());
    }
    let scope = Scope::new("full")?;
    let registry = Registry::start(&scope, &RegistryOptions::default())?;
    let small = bulky(1, 100_000).push(registry.address(), "small", "v1", None)?;
    let big = bulky(6, 4 << 20).push(registry.address(), "big", "v1", None)?;
    let tmpfs = Tmpfs::mount(scope.path("root"), "24m")?;
    {
        let images = open(&tmpfs.0).await?;
        pull(&images, &small.reference).await?;
        let before = used(&tmpfs.0)?;
        for _ in 0..2 {
            let error = pull(&images, &big.reference).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::DiskFull, "{}", chain(&error));
            assert!(chain(&error).contains("No space left"), "{}", chain(&error));
            assert!(images.get(&big.reference).await?.is_none());
            assert_eq!(images.list().await?.len(), 1, "the small image stays");
            assert!(images.snapshots().await?.is_empty());
        }
        // On a full disk nothing of the failed pull is worth keeping.
        let after = used(&tmpfs.0)?;
        assert!(after < before + (1 << 20), "{before} bytes before, {after} after");
        tmpfs.resize("96m")?;
        let image = pull(&images, &big.reference).await?;
        assert_eq!(image.id, big.id);
    }
    drop(tmpfs);
    drop(registry);
    scope.finish()
}
