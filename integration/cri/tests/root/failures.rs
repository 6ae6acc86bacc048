//! What can't work says what, where and why, leaves nothing behind, and works once the cause is gone.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use integration_cri::{Node, container, pod, v1};
use integration_support::http::{Response, Server};
use integration_support::{Compression, DaemonOptions, ImageBuilder, LayerEntry, Scope, image, run};
use tonic::Status;

fn pull(node: &Node<'_>, reference: &str) -> Result<String, Status> {
    let image = Some(v1::ImageSpec { image: reference.to_owned(), ..Default::default() });
    Ok(node.cri.pull_image(v1::PullImageRequest { image, ..Default::default() })?.image_ref)
}

fn nothing_was_kept(node: &Node<'_>) -> Result<()> {
    let images = node.cri.list_images(v1::ListImagesRequest::default())?.images;
    ensure!(images.is_empty(), "{images:?}");
    Ok(())
}

#[test]
fn an_image_that_does_not_exist() -> Result<()> {
    Node::test("noimage", |node| {
        let reference = format!("{}/test/nothing:9", node.registry.address());
        let error = pull(node, &reference).expect_err("there is no such image");
        ensure!(error.message().contains("test/nothing"), "{error:?}");
        for wrong in ["", "UPPER/case", "a:b:c", "name@sha256:short", "http://host/name"] {
            let error = pull(node, wrong).expect_err("not a reference");
            ensure!(error.message().contains(wrong), "{error:?}");
        }
        let (id, config) = node.pod("one")?;
        let error =
            node.create(&id, &config, &container("c", &reference, &["true"])).expect_err("not pulled");
        ensure!(format!("{error:#}").contains("test/nothing"), "{error:#}");
        ensure!(node.containers()?.is_empty());
        node.remove_pod(&id)
    })
}

#[test]
fn a_registry_that_is_down() -> Result<()> {
    Node::test("down", |node| {
        let pushed = node.push_busybox()?;
        node.registry.stop()?;
        let error = pull(node, &pushed.reference).expect_err("the registry is down");
        let address = node.registry.address().to_string();
        ensure!(error.message().contains(&address), "{error:?}");
        nothing_was_kept(node)?;
        node.registry.restart()?;
        node.pull(&pushed.reference).map(drop)
    })
}

/// A registry that serves one image of one layer and damages it.
fn lying_registry(lie: Lie) -> Result<Server> {
    let layer = image::tar(&[LayerEntry::File("file".into(), 0o644, vec![7; 100_000])])?;
    let config = serde_json::json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [if lie == Lie::DiffId { image::digest(b"x") } else { image::digest(&layer) }]}});
    let config = serde_json::to_vec(&config)?;
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": image::digest(&config), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": image::digest(&layer), "size": layer.len()}]});
    let manifest = serde_json::to_vec(&manifest)?;
    let mut served = layer.clone();
    match lie {
        Lie::Content => served[600] ^= 1,
        Lie::Short => served.truncate(50_000),
        Lie::Long => served.extend([0; 4096]),
        Lie::DiffId | Lie::ManifestDigest => {}
    }
    let (layer_digest, config_digest) = (image::digest(&layer), image::digest(&config));
    Server::start(move |request| {
        let target = request.target.as_str();
        if target == "/v2/" {
            Response::new(200, "{}")
        } else if target.contains("/manifests/") {
            let digest =
                if lie == Lie::ManifestDigest { image::digest(b"other") } else { image::digest(&manifest) };
            let response = Response::new(200, manifest.clone());
            response.with_header("content-type", MANIFEST).with_header("docker-content-digest", &digest)
        } else if target.ends_with(&config_digest) {
            Response::new(200, config.clone())
        } else if target.ends_with(&layer_digest) {
            Response::new(200, served.clone())
        } else {
            Response::new(404, "{}")
        }
    })
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    Content,
    Short,
    Long,
    DiffId,
    ManifestDigest,
}

#[test]
fn a_registry_that_lies() -> Result<()> {
    Node::test("lies", |node| {
        for lie in [Lie::Content, Lie::Short, Lie::Long, Lie::DiffId, Lie::ManifestDigest] {
            let server = lying_registry(lie)?;
            let reference = format!("{}/test/lie:1", server.address());
            let Err(error) = pull(node, &reference) else { anyhow::bail!("{lie:?} wasn't noticed") };
            ensure!(
                error.message().contains("test/lie") || error.message().contains("sha256:"),
                "{lie:?}: {error:?}"
            );
            nothing_was_kept(node)?;
        }
        node.busybox().map(drop)
    })
}

#[test]
fn a_layer_that_climbs_out() -> Result<()> {
    Node::test("climb", |node| {
        let outside = node.scope.make_dir("outside")?;
        let target = outside.to_string_lossy().into_owned();
        let attempts: [Vec<LayerEntry>; 4] = [
            vec![LayerEntry::File(format!("../../../../../../../..{target}/dotdot"), 0o644, b"x".to_vec())],
            vec![LayerEntry::File(format!("{target}/absolute"), 0o644, b"x".to_vec())],
            vec![
                LayerEntry::Symlink("link".into(), target.clone()),
                LayerEntry::File("link/through".into(), 0o644, b"x".to_vec()),
            ],
            vec![
                LayerEntry::File("etc/passwd".into(), 0o644, b"x".to_vec()),
                LayerEntry::Hardlink("hard".into(), format!("../../../../../../../..{target}/../secret")),
            ],
        ];
        std::fs::write(node.scope.path("secret"), "secret")?;
        for (n, entries) in attempts.into_iter().enumerate() {
            let image = ImageBuilder::empty().layer(entries, Compression::Gzip);
            let pushed = image.push(node.registry.address(), &format!("test/climb-{n}"), "1", None)?;
            // To refuse is fine, and so is to keep it inside; to write outside is not.
            pull(node, &pushed.reference).ok();
            ensure!(std::fs::read_dir(&outside)?.next().is_none(), "attempt {n} wrote outside of the layer");
        }
        ensure!(std::os::unix::fs::MetadataExt::nlink(&std::fs::metadata(node.scope.path("secret"))?) == 1);
        Ok(())
    })
}

#[test]
fn a_missing_cni_plugin() -> Result<()> {
    if !Node::can_run() {
        return Ok(());
    }
    Scope::test("plugin", |scope| {
        // A directory with all of the plugins but one.
        let bin = scope.make_dir("plugins")?;
        for plugin in ["bridge", "host-local", "loopback"] {
            std::os::unix::fs::symlink(PathBuf::from("/usr/lib/cni").join(plugin), bin.join(plugin))?;
        }
        let options = DaemonOptions { cni_bin_dir: Some(bin.clone()), ..Default::default() };
        let node = Node::start(scope, options)?;
        let config = pod(scope, "one");
        let error = format!("{:#}", node.run_pod(&config).expect_err("portmap is missing"));
        ensure!(error.contains("portmap"), "{error}");
        ensure!(node.pods()?.is_empty(), "a failed pod is listed");
        ensure!(
            node.daemon.leases().is_empty() && node.daemon.ports().is_empty(),
            "a failed pod keeps its address"
        );
        std::os::unix::fs::symlink("/usr/lib/cni/portmap", bin.join("portmap"))?;
        let id = node.run_pod(&config)?;
        node.remove_pod(&id)?;
        node.nothing_left()?;
        node.daemon.stop()
    })
}

#[test]
fn no_network_configuration() -> Result<()> {
    let options = DaemonOptions { no_network: true, ..Default::default() };
    Node::test_with("nonet", options, |node| {
        let status = node.cri.status(v1::StatusRequest::default())?.status.context("no status")?;
        let network =
            status.conditions.iter().find(|c| c.r#type == "NetworkReady").context("no condition")?;
        ensure!(!network.status && !network.message.is_empty(), "{network:?}");
        node.run_pod(&pod(node.scope, "one")).expect_err("there is no network");
        ensure!(node.pods()?.is_empty());
        Ok(())
    })
}

#[test]
fn a_full_disk() -> Result<()> {
    if !Node::can_run() {
        return Ok(());
    }
    Scope::test("full", |scope| {
        let small = scope.make_dir("small")?;
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "small"]).arg(&small))?.ok()?;
        let outcome = (|| {
            let options = DaemonOptions { root: Some(small.join("root")), ..Default::default() };
            let node = Node::start(scope, options)?;
            // Noise doesn't compress: the blob alone is larger than the disk.
            let noise = noise(40 << 20);
            let big = ImageBuilder::empty()
                .layer(vec![LayerEntry::File("big".into(), 0o644, noise)], Compression::Gzip);
            let pushed = big.push(node.registry.address(), "test/big", "1", None)?;
            let error = pull(&node, &pushed.reference).expect_err("the disk is too small");
            ensure!(error.message().to_lowercase().contains("no space left"), "{error:?}");
            nothing_was_kept(&node)?;
            let free = nix::sys::statvfs::statvfs(&small)?;
            ensure!(
                free.blocks_available() * free.fragment_size() > 20 << 20,
                "the failed pull keeps its blobs"
            );
            node.busybox().context("a small image fits")?;
            node.nothing_left()?;
            node.daemon.stop()
        })();
        run(Command::new("umount").arg(&small))?.ok()?;
        outcome
    })
}

/// Bytes that don't compress (xorshift).
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[test]
fn an_unknown_runtime_handler() -> Result<()> {
    Node::test("handler", |node| {
        let request = v1::RunPodSandboxRequest {
            config: Some(pod(node.scope, "one")),
            runtime_handler: "dream".to_owned(),
        };
        let error = node.cri.run_pod_sandbox(request).expect_err("there is no such handler");
        ensure!(error.message().contains("dream"), "{error:?}");
        ensure!(node.pods()?.is_empty());
        Ok(())
    })
}

#[test]
fn requests_that_lack_what_is_needed() -> Result<()> {
    Node::test("lacking", |node| {
        let error = node.cri.run_pod_sandbox(v1::RunPodSandboxRequest::default()).expect_err("no config");
        ensure!(error.code() == tonic::Code::InvalidArgument, "{error:?}");
        let (id, config) = node.pod("one")?;
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: id.clone(),
            config: None,
            sandbox_config: Some(config),
        };
        let error = node.cri.create_container(request).expect_err("no config");
        ensure!(error.code() == tonic::Code::InvalidArgument, "{error:?}");
        node.remove_pod(&id)
    })
}

#[test]
fn a_mount_whose_source_is_missing() -> Result<()> {
    Node::test("nosource", |node| {
        let image = node.busybox()?;
        let (id, config) = node.pod("one")?;
        let mut wanted = container("c", &image.reference, &["workload", "sleep"]);
        let source = node.scope.path("nothing/here");
        wanted.mounts = vec![v1::Mount {
            container_path: "/data".to_owned(),
            host_path: source.to_string_lossy().into_owned(),
            ..Default::default()
        }];
        // Docker made the directory, and kubelets rely on it for hostPath volumes; to say what is missing is as good.
        let outcome = node.create(&id, &config, &wanted).and_then(|c| node.start_container(&c));
        if let Err(error) = outcome {
            ensure!(format!("{error:#}").contains("nothing/here"), "{error:#}");
        }
        node.remove_pod(&id)
    })
}
