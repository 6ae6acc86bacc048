//! `cortenctl exec`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Context, Result};
use corten_cri_api::v1::ExecSyncRequest;

use crate::{
    args::Exec,
    client::{Answer, Client, refuse_streaming},
    find,
};

pub(crate) async fn exec(client: &Client, args: Exec) -> Result<ExitCode> {
    refuse_streaming(args.interactive, args.tty)?;
    let container = find::container(client, &args.container).await?;
    let program = args.command.first().cloned().unwrap_or_default();
    let request =
        ExecSyncRequest { container_id: container.id, cmd: args.command, timeout: args.timeout.into() };
    let answer = client.runtime().exec_sync(request).await;
    let answer = answer.or_say(|| format!("run {program} in {}", args.container))?;
    let written = io::stdout()
        .write_all(&answer.stdout)
        .and_then(|()| io::stdout().flush())
        .and_then(|()| io::stderr().write_all(&answer.stderr));
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("write the output"),
        _ => Ok(super::exit_code(answer.exit_code)),
    }
}
