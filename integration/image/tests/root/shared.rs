//! Work that is wanted twice at the same time is done once.

use anyhow::Result;
use corten_image::ErrorKind;
use integration_image::{Proxy, bulky, open, pull, sample};
use integration_support::http::Response;
use integration_support::{
    Compression, LayerEntry, Registry, RegistryOptions, Scope, require_program, require_root,
};

#[tokio::test(flavor = "multi_thread")]
async fn two_pulls_of_one_image_fetch_it_once() -> Result<()> {
    if !require_root() || !require_program("docker-registry") {
        return Ok(());
    }
    let scope = Scope::new("once")?;
    let registry = Registry::start(&scope, &RegistryOptions::default())?;
    let pushed = bulky(3, 1 << 20).push(registry.address(), "x", "v1", None)?;
    let proxy = Proxy::start(registry.address(), |_, answer| answer)?;
    let images = open(scope.path("root")).await?;
    let reference = proxy.reference("x:v1");
    let (a, b) = tokio::join!(pull(&images, &reference), pull(&images, &reference));
    assert_eq!((a?.id, b?.id), (pushed.id.clone(), pushed.id.clone()));
    for layer in &pushed.layers {
        assert_eq!(proxy.requests("GET", layer).len(), 1, "{layer}");
    }
    drop(registry);
    scope.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_images_fetch_the_layers_they_share_once() -> Result<()> {
    if !require_root() || !require_program("docker-registry") {
        return Ok(());
    }
    let scope = Scope::new("layers")?;
    let registry = Registry::start(&scope, &RegistryOptions::default())?;
    let more = |name: &str| {
        let file = LayerEntry::File(name.into(), 0o644, name.as_bytes().to_vec());
        bulky(2, 1 << 20).layer(vec![file], Compression::Gzip)
    };
    let one = more("one").push(registry.address(), "one", "v1", None)?;
    let two = more("two").push(registry.address(), "two", "v1", None)?;
    // The same layer again, over other layers: one blob, another snapshot.
    let twice = bulky(1, 1 << 20).layer(vec![], Compression::Gzip).layer(vec![], Compression::Gzip);
    let twice = twice.push(registry.address(), "twice", "v1", None)?;
    let proxy = Proxy::start(registry.address(), |_, answer| answer)?;
    let images = open(scope.path("root")).await?;
    let names = ["one:v1", "two:v1", "twice:v1"].map(|name| proxy.reference(name));
    let (a, b, c) =
        tokio::join!(pull(&images, &names[0]), pull(&images, &names[1]), pull(&images, &names[2]));
    assert_eq!((a?.id, b?.id, c?.id), (one.id, two.id, twice.id));
    for layer in one.layers.iter().chain(&two.layers).chain(&twice.layers) {
        assert_eq!(proxy.requests("GET", layer).len(), 1, "{layer}");
    }
    drop(registry);
    scope.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_shared_but_not_kept() -> Result<()> {
    if !require_root() || !require_program("docker-registry") {
        return Ok(());
    }
    let scope = Scope::new("failure")?;
    let registry = Registry::start(&scope, &RegistryOptions::default())?;
    let pushed = sample(Compression::Zstd).push(registry.address(), "x", "v1", None)?;
    let fails = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let (switch, layer) = (fails.clone(), pushed.layers[2].clone());
    let proxy = Proxy::start(registry.address(), move |request, answer| {
        let fail = switch.load(std::sync::atomic::Ordering::SeqCst) && request.target.contains(&layer);
        if fail { Response::new(404, "") } else { answer }
    })?;
    let images = open(scope.path("root")).await?;
    let reference = proxy.reference("x:v1");
    let (a, b) = tokio::join!(pull(&images, &reference), pull(&images, &reference));
    assert_eq!(a.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(b.unwrap_err().kind(), ErrorKind::NotFound);
    fails.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(pull(&images, &reference).await?.id, pushed.id);
    drop(registry);
    scope.finish()
}
