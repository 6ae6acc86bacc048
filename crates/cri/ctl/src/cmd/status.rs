//! `cortenctl status` and `cortenctl version`.

use std::process::ExitCode;

use anyhow::Result;
use corten_cri_api::v1::{StatusRequest, VersionRequest, VersionResponse};
use serde_json::json;

use crate::{
    args::Output,
    client::{Answer, Client},
    json,
    show::{Table, print, print_json},
};

pub(crate) async fn daemon_version(client: &Client) -> Result<VersionResponse> {
    let answer = client.runtime().version(VersionRequest { version: "v1".into() }).await;
    answer.or_say(|| "ask for the daemon's version".into())
}

pub(crate) async fn version(client: &Client, output: Output) -> Result<()> {
    let daemon = daemon_version(client).await?;
    let own = env!("CARGO_PKG_VERSION");
    if output == Output::Json {
        return print_json(&json!({"client": own, "daemon": json::message(&daemon, &[])}));
    }
    let VersionResponse { runtime_name, runtime_version, runtime_api_version, .. } = daemon;
    print(&format!("cortenctl {own}\n{runtime_name} {runtime_version} (CRI {runtime_api_version})\n"))
}

/// The conditions; exit code 1 if one of them isn't met.
pub(crate) async fn status(client: &Client, output: Output) -> Result<ExitCode> {
    let answer = client.runtime().status(StatusRequest { verbose: true }).await;
    let answer = answer.or_say(|| "ask for the daemon's status".into())?;
    let conditions = answer.status.unwrap_or_default().conditions;
    let ready = conditions.iter().all(|condition| condition.status);
    let code = if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if output == Output::Json {
        let conditions: Vec<_> = conditions.iter().map(|condition| json::message(condition, &[])).collect();
        print_json(&json!({"conditions": conditions, "info": json::info(&answer.info)}))?;
        return Ok(code);
    }
    let mut table = Table::new(&["CONDITION", "MET", "REASON", "MESSAGE"]);
    for condition in conditions {
        let met = if condition.status { "yes" } else { "no" };
        table.row([condition.r#type, met.to_owned(), condition.reason, condition.message]);
    }
    table.print()?;
    Ok(code)
}
