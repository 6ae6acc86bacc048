//! `cortenctl rm` and `cortenctl pod rm`.
//!
//! The logs of what we made are ours to remove: under Kubernetes the kubelet does that.

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Result, bail};
use corten_cri_api::v1::{
    ContainerState, PodSandboxStatusRequest, RemoveContainerRequest, RemovePodSandboxRequest,
    StopContainerRequest, StopPodSandboxRequest,
};

use super::{Batch, config};
use crate::{
    client::{Answer, Client},
    find,
    show::short,
};

pub(crate) async fn containers(client: &Client, names: Vec<String>, force: bool) -> Result<ExitCode> {
    let mut batch = Batch::default();
    for name in names {
        let removed = async {
            let found = find::container(client, &name).await?;
            container(client, &found.id, force).await
        };
        batch.take(&name, removed.await)?;
    }
    Ok(batch.code())
}

pub(crate) async fn pods(client: &Client, names: Vec<String>, force: bool) -> Result<ExitCode> {
    let mut batch = Batch::default();
    for name in names {
        let removed = async {
            let found = find::pod(client, &name).await?;
            let running = find::containers(client).await?.into_iter().any(|container| {
                container.pod_sandbox_id == found.id && container.state() == ContainerState::ContainerRunning
            });
            if running && !force {
                bail!("containers run in the pod {name}: stop it first, or use --force");
            }
            pod(client, &found.id).await
        };
        batch.take(&name, removed.await)?;
    }
    Ok(batch.code())
}

/// Removes a container by its id, with its log, and with its pod if that was made for it.
pub(crate) async fn container(client: &Client, id: &str, force: bool) -> Result<()> {
    let status = find::status(client, id).await?;
    if status.state() == ContainerState::ContainerRunning {
        if !force {
            bail!("the container {} runs: stop it first, or use --force", short(id));
        }
        let request = StopContainerRequest { container_id: id.to_owned(), timeout: 0 };
        client
            .runtime()
            .stop_container(request)
            .await
            .or_say(|| format!("kill the container {}", short(id)))?;
    }
    let all = find::containers(client).await?;
    let pod_id =
        all.iter().find(|container| container.id == id).map(|container| container.pod_sandbox_id.clone());
    let request = RemoveContainerRequest { container_id: id.to_owned() };
    client
        .runtime()
        .remove_container(request)
        .await
        .or_say(|| format!("remove the container {}", short(id)))?;
    let Some(pod_id) = pod_id else { return Ok(()) };
    let pods = find::pods(client).await?;
    let Some(found) = pods.iter().find(|pod| pod.id == pod_id) else { return Ok(()) };
    let alone = !all.iter().any(|other| other.id != id && other.pod_sandbox_id == pod_id);
    if alone && found.annotations.contains_key(config::SINGLE) {
        return pod(client, &pod_id).await;
    }
    if found.annotations.contains_key(config::LOG_DIRECTORY) {
        fs::remove_file(&status.log_path).ok(); // because it may never have been written
    }
    Ok(())
}

/// Stops and removes a pod by its id, with its containers and their logs.
pub(crate) async fn pod(client: &Client, id: &str) -> Result<()> {
    let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
    let status = client.runtime().pod_sandbox_status(request).await;
    let status = status.or_say(|| format!("get the status of pod {}", short(id)))?.status.unwrap_or_default();
    let request = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
    client.runtime().stop_pod_sandbox(request).await.or_say(|| format!("stop the pod {}", short(id)))?;
    let request = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
    client.runtime().remove_pod_sandbox(request).await.or_say(|| format!("remove the pod {}", short(id)))?;
    if let Some(directory) = status.annotations.get(config::LOG_DIRECTORY) {
        log_directory(directory);
    }
    Ok(())
}

/// Removes a log directory that [`config::pod`] made: log files only, so that a wrong name does no harm.
pub(crate) fn log_directory(directory: &str) {
    let directory = Path::new(directory);
    let logs = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in
        logs.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(".log")))
    {
        fs::remove_file(path).ok(); // because what is left is seen by the next line, and does no harm
    }
    fs::remove_dir(directory).ok(); // because others may keep files there
}
