//! What containerd is told.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use corten_task_api::Message;
use corten_task_api::proto::containerd::events::TaskExit;
use corten_task_api::proto::containerd::task::v3 as api;
use integration_shim::containerd::{Containerd, Protocol, delete, exec, kill_request, start, task, wait};
use integration_support::Bundle;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

crate::each_runtime_under_containerd!(
    a_life_in_order,
    the_exit_of_a_container_is_its_last,
    out_of_memory_is_told_while_it_runs,
    out_of_memory_at_the_end_is_told_before_the_exit,
    delete_clears_up_after_a_killed_shim,
);
crate::with_containerd!(
    nothing_is_lost_while_containerd_is_away,
    what_is_refused_for_ever_holds_nothing_up,
    a_binary_publishes_where_there_is_no_socket,
    who_goes_leaves_the_socket_to_who_comes,
    delete_where_nothing_was_ever_started,
);

async fn a_life_in_order(containerd: &Containerd<'_>) -> Result<()> {
    let (client, id) = containerd.run(Bundle::sh(containerd.scope, "c", "exec sleep 1000")).await?;
    exec(&client, &id, "e", "exit 3").await?;
    ensure!(wait(&client, &id, "e").await? == 3);
    delete(&client, &id, "e").await?;
    task::<()>(&client, "Pause", &api::PauseRequest { id: id.clone() }).await?;
    task::<()>(&client, "Resume", &api::ResumeRequest { id: id.clone() }).await?;
    task::<()>(&client, "Kill", &kill_request(&id, "", 9)).await?;
    wait(&client, &id, "").await?;
    delete(&client, &id, "").await?;
    containerd.event("delete").await?;
    let expected = "create,start,exec-added e,exec-started e,exit e,paused,resumed,exit,delete";
    ensure!(containerd.events().join(",") == expected, "{:?}", containerd.events());
    ensure!(containerd.envelopes().iter().all(|e| e.namespace == "test" && e.timestamp.is_some()));
    // One that ends before its start is answered.
    for n in 0..5 {
        let (_, id) = containerd.run(Bundle::sh(containerd.scope, &format!("q{n}"), "true")).await?;
        let mine = |e: &corten_task_api::proto::containerd::types::Envelope| {
            let event = e.event.as_ref().map(|event| event.value.clone()).unwrap_or_default();
            event.windows(id.len()).any(|w| w == id.as_bytes()).then(|| e.topic.replace("/tasks/", ""))
        };
        let deadline = std::time::Instant::now() + integration_support::DEADLINE;
        let topics = loop {
            let topics: Vec<_> = containerd.envelopes().iter().filter_map(mine).collect();
            if topics.iter().any(|t| t == "exit") {
                break topics;
            }
            ensure!(std::time::Instant::now() < deadline, "no exit: {topics:?}");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        };
        ensure!(topics == ["create", "start", "exit"], "{topics:?}");
    }
    Ok(())
}

async fn who_goes_leaves_the_socket_to_who_comes(containerd: &Containerd<'_>) -> Result<()> {
    let (client, id) = containerd.run(Bundle::sh(containerd.scope, "c", "true")).await?;
    wait(&client, &id, "").await?;
    // With an event that nobody takes it stays for a while after it was told to go.
    containerd.go().await;
    delete(&client, &id, "").await?;
    let dir = containerd.scope.path("b").join(&id);
    let shim = || fs::read_to_string(dir.join("shim.pid"));
    let first = shim()?;
    task::<()>(&client, "Shutdown", &api::ShutdownRequest { id: id.clone(), now: false }).await?;
    let again = task::<api::CreateTaskResponse>(&client, "Create", &containerd.request(&id, &dir)).await;
    let code = again.err().map(|status| status.code);
    ensure!(code == Some(corten_task_api::ttrpc::Code::Unavailable), "{code:?}");
    let deadline = std::time::Instant::now() + integration_support::DEADLINE;
    let successor = loop {
        // At first it may still be the one that goes who answers, or doesn't any more.
        let started = containerd.start(&id, &dir, Protocol::Protobuf).await;
        match started {
            Ok(client) if shim()? != first => break client,
            other => ensure!(std::time::Instant::now() < deadline, "{other:?}"),
        }
    };
    client.closed().wait().await;
    let address = fs::read_to_string(dir.join("address"))?;
    let path = address.strip_prefix("unix://").context("no address")?;
    corten_task_api::ttrpc::Client::connect(std::path::Path::new(path))
        .await
        .context("the first shim has taken its successor's socket along")?;
    task::<()>(&successor, "Shutdown", &api::ShutdownRequest { id, now: false }).await?;
    successor.closed().wait().await;
    Ok(())
}

async fn the_exit_of_a_container_is_its_last(containerd: &Containerd<'_>) -> Result<()> {
    let (client, id) = containerd.run(Bundle::sh(containerd.scope, "c", "exec sleep 1000")).await?;
    let execs = ["a", "b", "c", "d"];
    for name in execs {
        exec(&client, &id, name, "exec sleep 1000").await?;
    }
    task::<()>(&client, "Kill", &kill_request(&id, "", 9)).await?;
    containerd.event("exit").await?;
    let events = containerd.events();
    ensure!(events.last().is_some_and(|last| last == "exit"), "{events:?}");
    for name in execs {
        ensure!(events.contains(&format!("exit {name}")), "{events:?}");
        ensure!(wait(&client, &id, name).await? == 137);
    }
    let late = exec(&client, &id, "late", "true").await;
    integration_shim::containerd::refused(late, corten_task_api::ttrpc::Code::FailedPrecondition, &id)?;
    Ok(())
}

/// A container that can have 50 MB, and a program in it that wants 200.
fn hungry(containerd: &Containerd<'_>, script: &str) -> Bundle {
    let limit = serde_json::json!({"limit": 50_000_000, "swap": 50_000_000});
    Bundle::sh(containerd.scope, "c", script).set("/linux/resources/memory", limit)
}

async fn out_of_memory_is_told_while_it_runs(containerd: &Containerd<'_>) -> Result<()> {
    let script = "dd if=/dev/zero of=/dev/null bs=200M count=1; exec sleep 1000";
    let (client, id) = containerd.run(hungry(containerd, script)).await?;
    containerd.event("oom").await?;
    let state = api::StateRequest { id, exec_id: String::new() };
    ensure!(task::<api::StateResponse>(&client, "State", &state).await?.exited_at.is_none(), "it has ended");
    Ok(())
}

async fn out_of_memory_at_the_end_is_told_before_the_exit(containerd: &Containerd<'_>) -> Result<()> {
    let script = "exec dd if=/dev/zero of=/dev/null bs=200M count=1";
    containerd.run(hungry(containerd, script)).await?;
    containerd.event("exit").await?;
    ensure!(containerd.events().join(",") == "create,start,oom,exit", "{:?}", containerd.events());
    Ok(())
}

async fn nothing_is_lost_while_containerd_is_away(containerd: &Containerd<'_>) -> Result<()> {
    let (client, id) = containerd.run(Bundle::sh(containerd.scope, "c", "exec sleep 1000")).await?;
    containerd.event("start").await?;
    containerd.go().await;
    for n in 0..20 {
        let name = format!("e{n}");
        exec(&client, &id, &name, &format!("exit {n}")).await?;
        wait(&client, &id, &name).await?;
    }
    task::<()>(&client, "Kill", &kill_request(&id, "", 9)).await?;
    wait(&client, &id, "").await?;
    let before = containerd.events().len();
    containerd.come()?;
    containerd.event("exit").await?;
    let events = containerd.events()[before..].to_vec();
    let expected: Vec<_> = (0..20)
        .flat_map(|n| ["exec-added", "exec-started", "exit"].map(|topic| format!("{topic} e{n}")))
        .chain(["exit".to_owned()])
        .collect();
    ensure!(events == expected, "{events:?}");
    Ok(())
}

async fn what_is_refused_for_ever_holds_nothing_up(containerd: &Containerd<'_>) -> Result<()> {
    let (client, id) = containerd.run(Bundle::sh(containerd.scope, "c", "exec sleep 1000")).await?;
    containerd.event("start").await?;
    // Once is tried again; five times is enough.
    containerd.refuse(1);
    exec(&client, &id, "e", "exit 0").await?;
    containerd.event("exit e").await?;
    ensure!(containerd.events().contains(&"exec-added e".to_owned()), "{:?}", containerd.events());
    containerd.refuse(5);
    exec(&client, &id, "f", "exit 0").await?;
    containerd.event("exit f").await?;
    ensure!(!containerd.events().contains(&"exec-added f".to_owned()), "{:?}", containerd.events());
    Ok(())
}

async fn a_binary_publishes_where_there_is_no_socket(containerd: &Containerd<'_>) -> Result<()> {
    let (log, binary) = (containerd.scope.path("published"), containerd.scope.path("publish"));
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> {0}.args\ncat > {0}.$$ && mv {0}.$$ {0}.$(wc -l < {0}.args)\n",
        log.display()
    );
    fs::write(&binary, script)?;
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))?;
    let (id, dir) = containerd.bundle(Bundle::sh(containerd.scope, "c", "exit 5"))?;
    let mut command = std::process::Command::new(&containerd.shim);
    command.current_dir(&dir).args(["-namespace", "test", "-id", &id, "-address", "/containerd.sock"]);
    command.arg("-publish-binary").arg(&binary).arg("-socket-dir").arg(containerd.scope.path("s"));
    command.env_remove("TTRPC_ADDRESS").env_remove("MAX_SHIM_VERSION").arg("start");
    let started = integration_support::run(&mut command)?.ok()?.stdout;
    let path = started.trim_start_matches("unix://").to_owned();
    let client = corten_task_api::ttrpc::Client::connect(std::path::Path::new(&path)).await?;
    task::<api::CreateTaskResponse>(&client, "Create", &containerd.request(&id, &dir)).await?;
    start(&client, &id, "").await?;
    ensure!(wait(&client, &id, "").await? == 5);
    // One that took too long is published again.
    let exit = integration_support::wait_until("the exit", integration_support::DEADLINE, || {
        let last = (1..100).rev().find_map(|n| fs::read(format!("{}.{n}", log.display())).ok());
        let event = last.map(|event| prost_types::Any::decode(event.as_slice()));
        Ok(event.transpose()?.filter(|event| event.type_url == "containerd.events.TaskExit"))
    })?;
    let args = fs::read_to_string(containerd.scope.path("published.args"))?;
    let mut topics: Vec<_> = args.lines().map(|line| line.split(' ').nth(4).unwrap_or_default()).collect();
    topics.dedup();
    ensure!(topics == ["/tasks/create", "/tasks/start", "/tasks/exit"], "{args}");
    ensure!(args.starts_with("--address /containerd.sock publish --topic /tasks/create --namespace test\n"));
    ensure!(TaskExit::decode(exit.value.as_slice())?.exit_status == 5);
    Ok(())
}

async fn delete_where_nothing_was_ever_started(containerd: &Containerd<'_>) -> Result<()> {
    let (id, dir) = containerd.bundle(Bundle::sh(containerd.scope, "c", "true"))?;
    // Without a bundle, too: containerd may have taken it away before it crashed.
    for bundle in [dir.clone(), dir.join("nowhere")] {
        let mut command = std::process::Command::new(&containerd.shim);
        command
            .current_dir(&dir)
            .args(["-namespace", "test", "-id", &id])
            .arg("-bundle")
            .arg(bundle)
            .arg("delete");
        let output = command.stdin(std::process::Stdio::null()).output()?;
        ensure!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let deleted = api::DeleteResponse::decode(output.stdout.as_slice())?;
        ensure!(deleted.exit_status == 137 && deleted.exited_at.is_some() && deleted.pid == 0, "{deleted:?}");
    }
    Ok(())
}

async fn delete_clears_up_after_a_killed_shim(containerd: &Containerd<'_>) -> Result<()> {
    let (id, dir) = containerd.bundle(Bundle::sh(containerd.scope, "c", "exec sleep 1000"))?;
    let client = containerd.start(&id, &dir, Protocol::Protobuf).await?;
    let mut request = containerd.request(&id, &dir);
    request.rootfs = vec![corten_task_api::proto::containerd::types::Mount {
        r#type: "bind".into(),
        source: dir.join("rootfs").to_string_lossy().into_owned(),
        target: String::new(),
        options: vec!["rbind".into()],
    }];
    let pid = task::<api::CreateTaskResponse>(&client, "Create", &request).await?.pid;
    start(&client, &id, "").await?;
    let shim: i32 = fs::read_to_string(dir.join("shim.pid"))?.parse()?;
    kill(Pid::from_raw(shim), Signal::SIGKILL)?;
    client.closed().wait().await;
    ensure!(integration_shim::runs(pid), "the container has ended with its shim");
    for round in 0..2 {
        let mut command = std::process::Command::new(&containerd.shim);
        command.current_dir(&dir).args(["-namespace", "test", "-id", &id, "-address", "/x", "-bundle"]);
        let output = command.arg(&dir).arg("delete").output()?;
        ensure!(output.status.success(), "round {round}: {output:?}");
        let answer = api::DeleteResponse::decode(output.stdout.as_slice())?;
        ensure!(answer.exit_status == 137 && answer.exited_at.is_some() && answer.pid == pid, "{answer:?}");
    }
    integration_support::wait_for("the container to end", || !integration_shim::runs(pid))?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains(&*dir.to_string_lossy()), "the root file system is still mounted");
    let address = fs::read_to_string(dir.join("address"))?;
    ensure!(!fs::exists(address.strip_prefix("unix://").context("not an address")?)?, "the socket is left");
    Ok(())
}
