//! What the daemon consists of, in the order in which it comes to be.

use std::path::PathBuf;

use anyhow::{Context, Result};
use corten_cni::{Cni, CniConfig};
use corten_cri_api::corten::images_server::ImagesServer;
use corten_cri_api::v1::image_service_server::ImageServiceServer;
use corten_cri_api::v1::runtime_service_server::RuntimeServiceServer;
use corten_image::{Images, Registry, RegistryConfig};
use corten_server::{Deps, Dirs, Server};
use corten_task::{ShimConfig, Shims};
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::UnixListenerStream;

use crate::config::{self, Config};
use crate::listen;

/// Builds the daemon, recovers what an earlier one left, and serves until SIGTERM or SIGINT. Containers keep running.
pub(crate) async fn serve(config: Config) -> Result<()> {
    // Before anything else, so that a signal during recovery isn't lost.
    let mut terminate = signal(SignalKind::terminate()).context("can't catch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't catch SIGINT")?;
    listen::make_dir(&config.root)?;
    listen::make_dir(&config.state)?;
    let _lock = listen::lock(&config.state)?;
    let server = build(&config).await?;
    server.recover().await.map_err(|error| anyhow::anyhow!(error.chain()))?;
    let socket = config.socket();
    let listener = listen::bind(&socket)?;
    tracing::info!(socket = %socket.display(), version = env!("CARGO_PKG_VERSION"), "serving");
    let stopped = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    // No waiting for requests in flight: whatever they were doing is on record, and a watch may last for ever.
    let serving = tonic::transport::Server::builder()
        .add_service(RuntimeServiceServer::new(server.clone()))
        .add_service(ImageServiceServer::new(server.clone()))
        .add_service(ImagesServer::new(server))
        .serve_with_incoming(UnixListenerStream::new(listener));
    tokio::select! {
        served = serving => served.with_context(|| format!("can't serve on {}", socket.display()))?,
        () = stopped => tracing::info!("stopping; containers keep running"),
    }
    std::fs::remove_file(&socket).with_context(|| format!("can't remove {}", socket.display()))
}

/// The whole daemon, part by part.
async fn build(config: &Config) -> Result<Server> {
    let images = Images::open(images(config))
        .await
        .with_context(|| format!("can't open the images in {}", config.root.display()))?;
    let shims = Shims::new(ShimConfig {
        binary: config::program(&config.runtime.shim)?,
        runtime_binary: config::program(&config.runtime.binary)?,
        runtime_root: config.state.join("oci"),
        state_dir: config.state.clone(),
        namespace: "k8s.io".to_owned(),
    });
    let cni = Cni::new(CniConfig {
        conf_dir: config.cni.conf_dir.clone(),
        bin_dirs: config.cni.bin_dirs.clone(),
        // Beside what survives a reboot: address leases do.
        cache_dir: config.root.join("cni"),
        ..CniConfig::default()
    });
    let dirs = Dirs { root: config.root.clone(), state: config.state.clone() };
    let choices = corten_server::Config {
        cgroup_parent: config.cgroup_parent.clone(),
        ..corten_server::Config::default()
    };
    let server = Server::new(Deps { images, shims, cni, dirs, config: choices });
    server.map_err(|error| anyhow::anyhow!(error.chain()))
}

fn images(config: &Config) -> corten_image::Config {
    let registries = config.registries.iter().map(|(host, registry)| {
        (host.clone(), Registry { plain_http: registry.plain_http, ..Registry::default() })
    });
    corten_image::Config {
        registries: RegistryConfig { registries: registries.collect(), ..RegistryConfig::default() },
        max_concurrent_downloads: config.images.max_concurrent_downloads,
        ..corten_image::Config::new(PathBuf::from(&config.root))
    }
}
