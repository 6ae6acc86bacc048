//! `cortenctl pods` and `cortenctl pod`.

use std::process::ExitCode;

use anyhow::Result;
use corten_cri_api::v1::{PodSandboxState, PodSandboxStatusRequest, StopPodSandboxRequest};

use super::{Batch, config, options, run};
use crate::{
    args::{Output, PodCreate},
    client::{Answer, Client},
    find::{self, Named},
    json,
    show::{self, POD_STATES, Table, ago, print, print_json, short},
};

pub(crate) async fn list(client: &Client, output: Output) -> Result<()> {
    let pods = find::pods(client).await?;
    if output == Output::Json {
        return print_json(&pods.iter().map(|pod| json::message(pod, &POD_STATES)).collect());
    }
    let now = show::now();
    let mut table = Table::new(&["POD ID", "NAME", "NAMESPACE", "STATUS", "CREATED", "ADDRESSES"]);
    for pod in &pods {
        let state = match pod.state() {
            PodSandboxState::SandboxReady => "Ready",
            PodSandboxState::SandboxNotready => "Not ready",
        };
        let namespace = pod.metadata.as_ref().map_or("", |metadata| &metadata.namespace);
        table.row([
            short(&pod.id),
            pod.name().to_owned(),
            namespace.to_owned(),
            state.to_owned(),
            ago(pod.created_at, now),
            addresses(client, &pod.id).await,
        ]);
    }
    table.print()
}

/// The pod's addresses; none if it's gone since the list was made.
async fn addresses(client: &Client, id: &str) -> String {
    let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
    let Ok(answer) = client.runtime().pod_sandbox_status(request).await else { return "-".to_owned() };
    let network = answer.into_inner().status.and_then(|status| status.network).unwrap_or_default();
    let all: Vec<String> = [network.ip]
        .into_iter()
        .chain(network.additional_ips.into_iter().map(|ip| ip.ip))
        .filter(|ip| !ip.is_empty())
        .collect();
    if all.is_empty() { "-".to_owned() } else { all.join(",") }
}

pub(crate) async fn create(client: &Client, args: PodCreate) -> Result<()> {
    let name = match args.name {
        Some(name) => name,
        None => options::name_for("pod")?,
    };
    let config = config::pod(&name, &args.options, args.share_pid, false)?;
    let id = run::create_pod(client, &config).await?;
    print(&format!("{id}\n"))
}

pub(crate) async fn stop(client: &Client, names: Vec<String>) -> Result<ExitCode> {
    let mut batch = Batch::default();
    for name in names {
        let stopped = async {
            let pod = find::pod(client, &name).await?;
            let request = StopPodSandboxRequest { pod_sandbox_id: pod.id };
            let answer = client.runtime().stop_pod_sandbox(request).await;
            answer.or_say(|| format!("stop the pod {name}")).map(drop)
        };
        batch.take(&name, stopped.await)?;
    }
    Ok(batch.code())
}
