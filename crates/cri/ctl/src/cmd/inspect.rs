//! `cortenctl inspect`: all that the daemon tells, as JSON.

use anyhow::{Result, bail};
use corten_cri_api::v1::{ContainerStatusRequest, ImageSpec, ImageStatusRequest, PodSandboxStatusRequest};
use serde_json::{Value, json};

use super::images;
use crate::{
    client::{Answer, Client},
    find, json,
    show::{CONTAINER_STATES, POD_STATES, print_json},
};

pub(crate) async fn inspect(client: &Client, names: Vec<String>) -> Result<()> {
    let mut found = Vec::new();
    for name in names {
        found.push(one(client, &name).await?);
    }
    print_json(&found.into())
}

/// A container, else a pod, else an image of that name.
async fn one(client: &Client, name: &str) -> Result<Value> {
    let what = || format!("inspect {name}");
    if let Some(container) = find::pick(find::containers(client).await?, name)? {
        let request = ContainerStatusRequest { container_id: container.id, verbose: true };
        let answer = client.runtime().container_status(request).await.or_say(what)?;
        let status = json::message(&answer.status.unwrap_or_default(), &CONTAINER_STATES);
        let pod = container.pod_sandbox_id;
        return Ok(
            json!({"kind": "container", "podSandboxId": pod, "status": status, "info": json::info(&answer.info)}),
        );
    }
    if let Some(pod) = find::pick(find::pods(client).await?, name)? {
        let request = PodSandboxStatusRequest { pod_sandbox_id: pod.id, verbose: true };
        let answer = client.runtime().pod_sandbox_status(request).await.or_say(what)?;
        let status = json::message(&answer.status.unwrap_or_default(), &POD_STATES);
        return Ok(json!({"kind": "pod", "status": status, "info": json::info(&answer.info)}));
    }
    if let Some(image) = images::find(client, name).await? {
        let spec = ImageSpec { image: image.id, ..ImageSpec::default() };
        let request = ImageStatusRequest { image: Some(spec), verbose: true };
        let answer = client.images().image_status(request).await.or_say(what)?;
        let status = json::message(&answer.image.unwrap_or_default(), &[]);
        return Ok(json!({"kind": "image", "status": status, "info": json::info(&answer.info)}));
    }
    bail!("there is no container, pod or image {name:?}")
}
