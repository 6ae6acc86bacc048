//! ImageService: pull, list, status, remove.

use anyhow::{Context, Result, ensure};
use integration_cri::{Node, v1};
use integration_support::{Compression, ImageBuilder, ManifestFormat, Registry, RegistryOptions};
use serde_json::json;
use tonic::Code;

fn status(node: &Node<'_>, image: &str) -> Result<Option<v1::Image>> {
    let image = Some(v1::ImageSpec { image: image.to_owned(), ..Default::default() });
    Ok(node.cri.image_status(v1::ImageStatusRequest { image, verbose: false })?.image)
}

#[test]
fn pull_list_status_remove() -> Result<()> {
    Node::test("images", |node| {
        let pushed = node.push_busybox()?;
        ensure!(status(node, &pushed.reference)?.is_none(), "an image that wasn't pulled");
        let image_ref = node.pull(&pushed.reference)?;
        for name in [&pushed.reference, &pushed.by_digest, &pushed.id, &image_ref] {
            let image = status(node, name)?.with_context(|| format!("no image {name}"))?;
            ensure!(image.id == pushed.id, "{image:?}");
            ensure!(image.repo_tags == [pushed.reference.clone()], "{image:?}");
            ensure!(image.repo_digests == [pushed.by_digest.clone()], "{image:?}");
            ensure!(image.size > 1_000_000, "{image:?}");
        }
        ensure!(node.pull(&pushed.reference)? == image_ref, "a second pull");
        let list = node.cri.list_images(v1::ListImagesRequest::default())?.images;
        ensure!(list.len() == 1, "{list:?}");
        node.remove_image(&pushed.reference)?;
        ensure!(status(node, &pushed.id)?.is_none());
        node.remove_image(&pushed.reference)
    })
}

#[test]
fn every_format_and_compression_runs() -> Result<()> {
    Node::test("formats", |node| {
        let (pod, config) = node.pod("one")?;
        let formats = [
            ManifestFormat::Oci,
            ManifestFormat::Docker,
            ManifestFormat::OciIndex,
            ManifestFormat::DockerList,
        ];
        let compressions = [Compression::Gzip, Compression::None, Compression::Zstd, Compression::Gzip];
        for (n, (format, compression)) in formats.into_iter().zip(compressions).enumerate() {
            let word = format!("image-{n}");
            let image = ImageBuilder::workload()?
                .compression(compression)
                .format(format)
                .config("Env", json!([format!("WORD={word}")]))
                .push(node.registry.address(), &format!("test/format-{n}"), "1", None)?;
            // By digest one time, by tag the other.
            let reference = if n % 2 == 0 { &image.reference } else { &image.by_digest };
            node.pull(reference)?;
            let id = node.run(&pod, &config, &word, reference, &["/bin/workload", "env"])?;
            node.wait_log(&id, &format!("WORD={word}"))?;
        }
        node.remove_pod(&pod)
    })
}

#[test]
fn the_images_own_configuration_counts() -> Result<()> {
    Node::test("imageconfig", |node| {
        let image = ImageBuilder::workload()?
            .config("Entrypoint", json!(["/bin/workload", "all"]))
            .config("Cmd", json!(["id", ",", "pwd", ",", "env"]))
            .config("Env", json!(["FROM=image"]))
            .config("WorkingDir", json!("/etc"))
            .config("User", json!("user"))
            .push(node.registry.address(), "test/configured", "1", None)?;
        node.pull(&image.reference)?;
        let (pod, config) = node.pod("one")?;
        let id = node.run(&pod, &config, "c", &image.reference, &[])?;
        let lines = node.wait_log(&id, "FROM=image")?;
        for text in ["uid: 1000", "gid: 1000", "/etc"] {
            ensure!(lines.iter().any(|line| line.text == text), "no {text:?} in {lines:?}");
        }
        node.remove_pod(&pod)
    })
}

#[test]
fn passwords() -> Result<()> {
    Node::test("auth", |node| {
        let auth = Some(("somebody".to_owned(), "s3cret-pa55".to_owned()));
        let registry = Registry::start(node.scope, &RegistryOptions { auth })?;
        let image =
            ImageBuilder::workload()?.push(registry.address(), "test/private", "1", registry.auth())?;
        let pull = |auth: Option<v1::AuthConfig>| {
            let spec = Some(v1::ImageSpec { image: image.reference.clone(), ..Default::default() });
            node.cri.pull_image(v1::PullImageRequest { image: spec, auth, ..Default::default() })
        };
        let error = pull(None).expect_err("a password is needed");
        ensure!(error.message().contains("test/private"), "{error:?}");
        let with = |password: &str| v1::AuthConfig {
            username: "somebody".to_owned(),
            password: password.to_owned(),
            ..Default::default()
        };
        pull(Some(with("wr0ng-pa55"))).expect_err("the password is wrong");
        pull(Some(with("s3cret-pa55")))?;
        for secret in ["s3cret-pa55", "wr0ng-pa55"] {
            ensure!(!node.daemon.log().contains(secret), "a password is in the log");
        }
        Ok(())
    })
}

#[test]
fn pulls_of_the_same_image_at_the_same_time() -> Result<()> {
    Node::test("pulls", |node| {
        let pushed = node.push_busybox()?;
        let spec = v1::ImageSpec { image: pushed.reference.clone(), ..Default::default() };
        let request = v1::PullImageRequest { image: Some(spec), ..Default::default() };
        std::thread::scope(|threads| {
            let handles: Vec<_> = (0..4)
                .map(|_| {
                    let (client, request) = (node.cri.another(), request.clone());
                    threads.spawn(move || anyhow::Ok(client?.pull_image(request)?.image_ref))
                })
                .collect();
            handles.into_iter().map(|h| h.join().expect("a thread panicked")).collect::<Result<Vec<_>>>()
        })?;
        ensure!(node.cri.list_images(v1::ListImagesRequest::default())?.images.len() == 1);
        Ok(())
    })
}

#[test]
fn an_image_in_use_is_removed_without_harm() -> Result<()> {
    Node::test("inuse", |node| {
        let image = node.busybox()?;
        let (pod, config) = node.pod("one")?;
        let id = node.run(&pod, &config, "c", &image.reference, &["workload", "sleep"])?;
        node.remove_image(&image.reference)?;
        ensure!(node.exec_ok(&id, &["echo", "still here"])? == "still here\n");
        ensure!(status(node, &image.reference)?.is_none());
        let error = node
            .cri
            .create_container(v1::CreateContainerRequest {
                pod_sandbox_id: pod.clone(),
                config: Some(integration_cri::container("d", &image.reference, &["true"])),
                sandbox_config: Some(config),
            })
            .expect_err("the image is gone");
        ensure!(error.code() == Code::NotFound && error.message().contains("test/busybox"), "{error:?}");
        node.remove_pod(&pod)
    })
}
