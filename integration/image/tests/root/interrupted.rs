//! Pulls that end in the middle: given up by the caller, or with the process.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use anyhow::{Context, Result};
use integration_image::{Proxy, bulky, files, open, pull};
use integration_support::{
    Pushed, Registry, RegistryOptions, Scope, require_program, require_root, wait_for,
};

/// A proxy that serves half of the layer and then breaks off, and whose next answer for it waits until the sender is dropped.
fn hanging(registry: &Registry, pushed: &Pushed) -> Result<(Proxy, Arc<AtomicUsize>, mpsc::Sender<()>)> {
    let (release, released) = mpsc::channel::<()>();
    let (layer, released) = (pushed.layers[0].clone(), Mutex::new(released));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let proxy = Proxy::start(registry.address(), move |request, mut answer| {
        if request.method != "GET" || !request.target.contains(&layer) {
            return answer;
        }
        match count.fetch_add(1, Ordering::SeqCst) {
            0 => {
                let promised = answer.body.len().to_string();
                answer.headers.retain(|(name, _)| name != "content-length");
                answer.body.truncate(600_000);
                answer.with_header("content-length", &promised)
            }
            _ => {
                released.lock().unwrap_or_else(PoisonError::into_inner).recv().ok();
                answer
            }
        }
    })?;
    Ok((proxy, asked, release))
}

fn no_half_snapshot(root: &std::path::Path) -> Result<bool> {
    Ok(!files(&root.join("snapshots"))?.iter().any(|file| file.ends_with("file0")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_is_given_up_leaves_a_beginning_that_the_next_continues() -> Result<()> {
    if !require_root() || !require_program("docker-registry") {
        return Ok(());
    }
    let scope = Scope::new("cancel")?;
    let registry = Registry::start(&scope, &RegistryOptions::default())?;
    let pushed = bulky(1, 1 << 20).push(registry.address(), "x", "v1", None)?;
    let (proxy, asked, release) = hanging(&registry, &pushed)?;
    let root = scope.path("root");
    let images = open(&root).await?;
    let (library, reference) = (images.clone(), proxy.reference("x:v1"));
    let task = tokio::spawn(async move { pull(&library, &reference).await });
    wait_for("the pull to hang", || asked.load(Ordering::SeqCst) >= 2)?;
    task.abort();
    assert!(task.await.is_err_and(|e| e.is_cancelled()));
    assert!(images.list().await?.is_empty());
    images.gc().await?;
    wait_for("the half unpacked layer to go", || no_half_snapshot(&root).unwrap_or(false))?;
    drop(release);
    proxy.forget();
    assert_eq!(pull(&images, &proxy.reference("x:v1")).await?.id, pushed.id);
    let request = proxy.requests("GET", &pushed.layers[0]).pop().context("no request for the layer")?;
    assert!(request.headers.contains(&("range".into(), "bytes=600000-".into())), "{request:?}");
    drop(registry);
    scope.finish()
}

/// Not a test: what the next test runs in a process of its own, to kill it.
#[tokio::test]
async fn child_that_pulls() -> Result<()> {
    let (Ok(root), Ok(reference)) = (std::env::var("PULL_ROOT"), std::env::var("PULL_REFERENCE")) else {
        return Ok(());
    };
    pull(&open(PathBuf::from(root)).await?, &reference).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_in_a_pull_leaves_nothing_visible_and_the_next_continues() -> Result<()> {
    if !require_root() || !require_program("docker-registry") {
        return Ok(());
    }
    let scope = Scope::new("killed")?;
    let registry = Registry::start(&scope, &RegistryOptions::default())?;
    let pushed = bulky(1, 1 << 20).push(registry.address(), "x", "v1", None)?;
    let (proxy, asked, release) = hanging(&registry, &pushed)?;
    let root = scope.path("root");
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "interrupted::child_that_pulls"])
        .env("PULL_ROOT", &root)
        .env("PULL_REFERENCE", proxy.reference("x:v1"))
        .stdout(Stdio::null())
        .spawn()?;
    wait_for("the pull to hang", || asked.load(Ordering::SeqCst) >= 2)?;
    child.kill()?;
    child.wait()?;
    drop(release);
    proxy.forget();

    let images = open(&root).await?;
    assert!(images.list().await?.is_empty());
    assert!(images.snapshots().await?.is_empty());
    assert!(no_half_snapshot(&root)?, "{:?}", files(&root)?);
    assert_eq!(pull(&images, &proxy.reference("x:v1")).await?.id, pushed.id);
    let request = proxy.requests("GET", &pushed.layers[0]).pop().context("no request for the layer")?;
    assert!(request.headers.contains(&("range".into(), "bytes=600000-".into())), "{request:?}");
    drop(registry);
    scope.finish()
}
