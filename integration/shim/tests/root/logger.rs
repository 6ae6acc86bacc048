//! Loggers: binary:// and binary-v2://.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use corten_task_api::proto::containerd::task::v3 as api;
use corten_task_api::ttrpc::{Client, Code, Status};
use integration_shim::containerd::{Containerd, Protocol, delete, refused, start, task, wait};
use integration_support::Bundle;

crate::each_runtime_under_containerd!(a_logger_has_all_that_is_written);
crate::with_containerd!(
    a_logger_that_dies_stops_nobody,
    a_logger_that_does_not_start_is_told,
    a_terminal_has_a_logger_too,
    files_are_made_with_their_directories,
);

/// A logger that is a shell script.
fn script(containerd: &Containerd<'_>, text: &str) -> Result<PathBuf> {
    let path = containerd.scope.path("logger");
    fs::write(&path, format!("#!/bin/sh\ncd {}\n{text}\n", containerd.scope.dir().display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

async fn create(
    containerd: &Containerd<'_>,
    bundle: Bundle,
    uri: &str,
    terminal: bool,
) -> Result<(Client, String, Result<api::CreateTaskResponse, Status>)> {
    let (id, dir) = containerd.bundle(bundle)?;
    let client = containerd.start(&id, &dir, Protocol::Protobuf).await?;
    let mut request = containerd.request(&id, &dir);
    request.stdout = uri.to_owned();
    request.stderr = if terminal { String::new() } else { uri.to_owned() };
    request.terminal = terminal;
    let answer = task(&client, "Create", &request).await;
    Ok((client, id, answer))
}

async fn a_logger_has_all_that_is_written(containerd: &Containerd<'_>) -> Result<()> {
    let logger = script(
        containerd,
        "echo \"$CONTAINER_ID $CONTAINER_NAMESPACE $*\" > about; exec 5>&-; cat <&3 > out & cat <&4 > err & wait; echo done > ended",
    )?;
    let uri = format!("binary://{}?-a=x%20y&-b=z", logger.display());
    let bundle = Bundle::sh(containerd.scope, "c", "for i in 1 2 3; do echo out $i; echo err $i >&2; done");
    let (client, id, created) = create(containerd, bundle, &uri, false).await?;
    created?;
    start(&client, &id, "").await?;
    wait(&client, &id, "").await?;
    delete(&client, &id, "").await?;
    // It has ended because there is no more, not because it was killed.
    let path = |name: &str| containerd.scope.path(name);
    integration_support::wait_for("the logger to end", || path("ended").exists())?;
    ensure!(fs::read_to_string(path("out"))? == "out 1\nout 2\nout 3\n");
    ensure!(fs::read_to_string(path("err"))? == "err 1\nerr 2\nerr 3\n");
    ensure!(fs::read_to_string(path("about"))? == format!("{id} test -a x y -b z\n"));
    Ok(())
}

async fn a_logger_that_dies_stops_nobody(containerd: &Containerd<'_>) -> Result<()> {
    let logger = script(containerd, "exec 5>&-; read line <&3; echo \"$line\" > out")?;
    let uri = format!("binary://{}", logger.display());
    // More than a pipe holds.
    let script = "echo first; i=0; while [ $i -lt 30000 ]; do echo another line; i=$((i+1)); done; exit 7";
    let (client, id, created) =
        create(containerd, Bundle::sh(containerd.scope, "c", script), &uri, false).await?;
    created?;
    start(&client, &id, "").await?;
    ensure!(wait(&client, &id, "").await? == 7, "the container has suffered");
    ensure!(fs::read_to_string(containerd.scope.path("out"))? == "first\n");
    delete(&client, &id, "").await?;
    Ok(())
}

async fn a_logger_that_does_not_start_is_told(containerd: &Containerd<'_>) -> Result<()> {
    let bundle = |name| Bundle::sh(containerd.scope, name, "exit 7");
    let (.., answer) = create(containerd, bundle("a"), "binary:///nonexistent/logger", false).await?;
    refused(answer, Code::NotFound, "/nonexistent/logger")?;
    let logger = script(containerd, "exit 1")?;
    let uri = format!("binary-v2://{}", logger.display());
    let (.., answer) = create(containerd, bundle("b"), &uri, false).await?;
    refused(answer, Code::Unknown, "ready")?;
    let logger = script(containerd, "printf x >&5; exec 5>&-; cat <&3 > out")?;
    let uri = format!("binary-v2://{}", logger.display());
    let (client, id, answer) = create(containerd, bundle("c"), &uri, false).await?;
    answer?;
    start(&client, &id, "").await?;
    ensure!(wait(&client, &id, "").await? == 7);
    delete(&client, &id, "").await?;
    Ok(())
}

async fn a_terminal_has_a_logger_too(containerd: &Containerd<'_>) -> Result<()> {
    let logger = script(containerd, "exec 5>&-; cat <&3 > out; echo done > ended")?;
    let uri = format!("binary://{}", logger.display());
    let bundle = Bundle::sh(
        containerd.scope,
        "c",
        "tty; i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done",
    )
    .terminal();
    let (client, id, created) = create(containerd, bundle, &uri, true).await?;
    created?;
    start(&client, &id, "").await?;
    wait(&client, &id, "").await?;
    delete(&client, &id, "").await?;
    integration_support::wait_for("the logger to end", || containerd.scope.path("ended").exists())?;
    let out = fs::read_to_string(containerd.scope.path("out"))?;
    ensure!(out.starts_with("/dev/") && out.ends_with("line 499\r\n"), "{out:?}");
    Ok(())
}

async fn files_are_made_with_their_directories(containerd: &Containerd<'_>) -> Result<()> {
    let file = containerd.scope.path("new/dir/log");
    let uri = format!("file://{}", file.display());
    let bundle = Bundle::sh(containerd.scope, "c", "echo out; echo err >&2");
    let (client, id, created) = create(containerd, bundle, &uri, false).await?;
    created?;
    start(&client, &id, "").await?;
    wait(&client, &id, "").await?;
    ensure!(fs::read_to_string(file)? == "out\nerr\n");
    Ok(())
}
