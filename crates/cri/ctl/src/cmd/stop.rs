//! `cortenctl stop`.

use std::process::ExitCode;

use anyhow::Result;
use corten_cri_api::v1::StopContainerRequest;

use super::Batch;
use crate::{
    args::Stop,
    client::{Answer, Client},
    find,
};

pub(crate) async fn stop(client: &Client, args: Stop) -> Result<ExitCode> {
    let mut batch = Batch::default();
    for name in args.names {
        let stopped = async {
            let container = find::container(client, &name).await?;
            let request = StopContainerRequest { container_id: container.id, timeout: args.timeout.into() };
            let answer = client.runtime().stop_container(request).await;
            answer.or_say(|| format!("stop the container {name}")).map(drop)
        };
        batch.take(&name, stopped.await)?;
    }
    Ok(batch.code())
}
