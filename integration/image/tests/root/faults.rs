//! Registries that lie, stutter and break off.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use corten_image::ErrorKind;
use integration_image::{Proxy, bulky, chain, config, expect_no_content, open, pull, sample};
use integration_support::http::{Request, Response};
use integration_support::{Compression, Registry, RegistryOptions, Scope, require_program, require_root};

fn is_get(request: &Request, part: &str) -> bool {
    request.method == "GET" && request.target.contains(part)
}

/// Changes one byte in the middle.
fn damage(mut answer: Response) -> Response {
    let middle = answer.body.len() / 2;
    answer.body[middle] ^= 1;
    answer
}

/// A pull through `fault` fails as expected, leaves nothing, and succeeds once the registry is honest.
async fn fails_then_heals(
    name: &str,
    expected: &str,
    fault: impl Fn(&Request, Response, &[String]) -> Response + Send + Sync + 'static,
) -> Result<()> {
    if !require_root() || !require_program("docker-registry") {
        return Ok(());
    }
    let scope = Scope::new(name)?;
    let registry = Registry::start(&scope, &RegistryOptions::default())?;
    let pushed = sample(Compression::Gzip).push(registry.address(), "x", "v1", None)?;
    let mut layers = pushed.layers.clone();
    layers.push(pushed.id.clone());
    let honest = Arc::new(AtomicUsize::new(0));
    let (switch, digests) = (honest.clone(), layers);
    let proxy = Proxy::start(registry.address(), move |request, answer| {
        if switch.load(Ordering::SeqCst) == 1 { answer } else { fault(request, answer, &digests) }
    })?;
    let root = scope.path("root");
    let images = open(&root).await?;
    let error = pull(&images, &proxy.reference("x:v1")).await.expect_err("a lie was believed");
    let text = chain(&error);
    assert!(text.contains(expected), "{text}");
    assert_eq!(error.kind(), ErrorKind::BadImage, "{text}");
    assert!(images.list().await?.is_empty() && images.get(&pushed.id).await?.is_none());
    drop(images);
    let mut settings = config(&root);
    settings.keep_partial_downloads = std::time::Duration::ZERO;
    let images = corten_image::Images::open(settings).await?;
    expect_no_content(&root)?;
    honest.store(1, Ordering::SeqCst);
    assert_eq!(pull(&images, &proxy.reference("x:v1")).await?.id, pushed.id);
    drop(registry);
    scope.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_of_another_digest_is_refused() -> Result<()> {
    fails_then_heals("manifest", "has digest", |request, answer, _| {
        if is_get(request, "/manifests/") { damage(answer) } else { answer }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_of_another_digest_is_refused() -> Result<()> {
    fails_then_heals("config", "has digest", |request, answer, digests| {
        if is_get(request, &digests[3]) { damage(answer) } else { answer }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_of_another_digest_is_refused() -> Result<()> {
    fails_then_heals("layer", "has digest", |request, answer, digests| {
        if is_get(request, &digests[1]) { damage(answer) } else { answer }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_of_another_size_is_refused() -> Result<()> {
    fails_then_heals("size", "bytes or more, expected", |request, mut answer, digests| {
        if is_get(request, &digests[0]) {
            answer.body.extend_from_slice(b"more");
            answer.headers.retain(|(name, _)| name != "content-length");
        }
        answer
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_isnt_what_the_configuration_promises_is_refused() -> Result<()> {
    if !require_root() || !require_program("docker-registry") {
        return Ok(());
    }
    let scope = Scope::new("diffid")?;
    let registry = Registry::start(&scope, &RegistryOptions::default())?;
    // Another image's configuration, correctly referenced: only the diffIDs give it away.
    let client = corten_distribution::Client::new(corten_distribution::RegistryConfig::default());
    let name = format!("{}/mixed:v1", registry.address());
    let reference = corten_distribution::Reference::parse(&name)?;
    let repository = client.repository(&reference, None);
    let config = serde_json::json!({"os": "linux", "architecture": host(),
        "rootfs": {"type": "layers", "diff_ids": [integration_support::image::digest(b"something else")]}});
    let config = repository
        .push_blob(corten_distribution::media_type::OCI_CONFIG, serde_json::to_vec(&config)?)
        .await?;
    let tar = integration_support::image::tar(&[])?;
    let layer = repository.push_blob("application/vnd.oci.image.layer.v1.tar", tar).await?;
    let manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": [layer]});
    let kind = corten_distribution::media_type::OCI_MANIFEST;
    repository.push_manifest("v1", kind, serde_json::to_vec(&manifest)?).await?;

    let images = open(scope.path("root")).await?;
    let error = pull(&images, &name).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadImage);
    assert!(chain(&error).contains("diffID"), "{}", chain(&error));
    images.gc().await?;
    expect_no_content(&scope.path("root"))?;
    drop(registry);
    scope.finish()
}

fn host() -> String {
    corten_image::Platform::host().architecture
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuttering_registry_is_asked_again_and_a_broken_blob_is_continued() -> Result<()> {
    if !require_root() || !require_program("docker-registry") {
        return Ok(());
    }
    let scope = Scope::new("stutter")?;
    let registry = Registry::start(&scope, &RegistryOptions::default())?;
    let pushed = bulky(1, 1 << 20).push(registry.address(), "x", "v1", None)?;
    let count = AtomicUsize::new(0);
    let proxy = Proxy::start(registry.address(), move |request, mut answer| {
        match count.fetch_add(1, Ordering::SeqCst) {
            0 => Response::new(503, "not now"),
            1 => Response::new(429, "too many").with_header("retry-after", "0"),
            // Half a megabyte at a time of what should come.
            _ if request.target.contains("/blobs/") && answer.body.len() > 500_000 => {
                let promised = answer.body.len().to_string();
                answer.headers.retain(|(name, _)| name != "content-length");
                answer.body.truncate(500_000);
                answer.with_header("content-length", &promised)
            }
            _ => answer,
        }
    })?;
    let images = open(scope.path("root")).await?;
    assert_eq!(pull(&images, &proxy.reference("x:v1")).await?.id, pushed.id);
    let asked: Vec<_> = proxy
        .requests("GET", &pushed.layers[0])
        .iter()
        .map(|r| r.headers.iter().find(|(n, _)| n == "range").map(|(_, v)| v.clone()))
        .collect();
    assert_eq!(asked, [None, Some("bytes=500000-".into()), Some("bytes=1000000-".into())]);
    drop(registry);
    scope.finish()
}
