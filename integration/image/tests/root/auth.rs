//! Credentials: right, wrong, none; and what else a registry can refuse.

use anyhow::Result;
use corten_image::{Auth, ErrorKind, PullOptions};
use integration_image::{chain, open, pull, sample};
use integration_support::{Compression, Registry, RegistryOptions, Scope, require_program, require_root};

fn with(user: &str, password: &str) -> PullOptions {
    PullOptions { auth: Some(Auth::basic(user, password)), ..PullOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_right_password_pulls() -> Result<()> {
    if !require_root() || !require_program("docker-registry") || !require_program("htpasswd") {
        return Ok(());
    }
    let scope = Scope::new("auth")?;
    let options = RegistryOptions { auth: Some(("alice".into(), "open sesame".into())) };
    let registry = Registry::start(&scope, &options)?;
    let pushed = sample(Compression::Gzip).push(registry.address(), "private", "v1", registry.auth())?;
    let images = open(scope.path("root")).await?;

    let error = pull(&images, &pushed.reference).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(chain(&error).contains("wants credentials"), "{}", chain(&error));

    let error = images.pull(&pushed.reference, with("alice", "close sesame")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    let text = format!("{} {error:?}", chain(&error));
    assert!(text.contains("not accepted") && !text.contains("sesame"), "{text}");

    assert!(images.list().await?.is_empty());
    let image = images.pull(&pushed.reference, with("alice", "open sesame")).await?;
    assert_eq!(image.id, pushed.id);

    // Having the image doesn't give it to those who may not: each pull asks the registry anew.
    let error = pull(&images, &pushed.reference).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    drop(registry);
    scope.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_isnt_there_and_who_isnt_there() -> Result<()> {
    if !require_root() || !require_program("docker-registry") {
        return Ok(());
    }
    let scope = Scope::new("absent")?;
    let mut registry = Registry::start(&scope, &RegistryOptions::default())?;
    let pushed = sample(Compression::Gzip).push(registry.address(), "here", "v1", None)?;
    let images = open(scope.path("root")).await?;
    let host = registry.address().to_string();

    for absent in [format!("{host}/nowhere:v1"), format!("{host}/here:v2")] {
        let error = pull(&images, &absent).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{}", chain(&error));
        let text = chain(&error);
        assert!(text.contains(&absent) && text.contains("not found"), "{text}");
    }
    let error = pull(&images, "Not A Name").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidName);

    registry.stop()?;
    let error = pull(&images, &pushed.reference).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = chain(&error);
    assert!(text.contains(&format!("connect to registry {host}")) && text.contains("refused"), "{text}");

    registry.restart()?;
    pull(&images, &pushed.reference).await?;
    drop(registry);
    scope.finish()
}
