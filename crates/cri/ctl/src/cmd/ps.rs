//! `cortenctl ps`.

use std::collections::HashMap;

use anyhow::Result;
use corten_cri_api::v1::{Container, ContainerState};

use crate::{
    args::{Output, Ps},
    client::Client,
    find::{self, Named},
    json,
    show::{self, CONTAINER_STATES, Table, ago, print, print_json, short},
};

pub(crate) async fn ps(client: &Client, args: Ps, output: Output) -> Result<()> {
    let mut containers = find::containers(client).await?;
    containers.retain(|container| args.all || container.state() == ContainerState::ContainerRunning);
    if args.quiet {
        return print(&containers.iter().map(|container| format!("{}\n", container.id)).collect::<String>());
    }
    if output == Output::Json {
        return print_json(&containers.iter().map(|c| json::message(c, &CONTAINER_STATES)).collect());
    }
    let pods = find::pods(client).await?;
    let pods: HashMap<&str, &str> = pods.iter().map(|pod| (pod.id.as_str(), pod.name())).collect();
    let now = show::now();
    let mut table = Table::new(&["CONTAINER ID", "NAME", "IMAGE", "STATUS", "CREATED", "POD"]);
    for container in &containers {
        // It may be gone since the list was made.
        let Ok(status) = find::status(client, &container.id).await else { continue };
        table.row([
            short(&container.id),
            container.name().to_owned(),
            image(container),
            show::state(&status, now),
            ago(container.created_at, now),
            pods.get(container.pod_sandbox_id.as_str()).map_or_else(|| "-".into(), |&name| name.to_owned()),
        ]);
    }
    table.print()
}

/// The image as the user named it, else its id.
fn image(container: &Container) -> String {
    let Some(spec) = &container.image else { return short(&container.image_ref) };
    let name = if spec.user_specified_image.is_empty() { &spec.image } else { &spec.user_specified_image };
    if name.starts_with("sha256:") { short(name) } else { name.clone() }
}
