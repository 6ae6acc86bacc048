//! What the Task API's calls mean where it isn't plain: wrong requests, checkpoints, figures, full disks.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use corten_task_api::Message;
use corten_task_api::proto::cgroups;
use corten_task_api::proto::containerd::runc::v1::{CheckpointOptions, Options, ProcessDetails};
use corten_task_api::proto::containerd::task::v3 as api;
use corten_task_api::proto::cri::runtimeoptions;
use corten_task_api::services::any;
use corten_task_api::ttrpc::{Client, Code, Status};
use integration_shim::containerd::{
    Containerd, Protocol, delete, exec, kill_request, refused, start, task, wait,
};
use integration_support::Bundle;

crate::each_runtime_under_containerd!(
    a_checkpoint_is_restored,
    a_failed_checkpoint_is_told_and_the_container_goes_on,
    a_failed_restore_is_told_and_leaves_nothing,
    execs_have_states_of_their_own,
    nobody_waits_for_what_will_never_run,
    a_second_container_of_the_same_name_is_refused,
    figures_are_typed,
);
crate::with_containerd!(
    pipes_belong_to_whom_the_options_say,
    options_reach_the_runtime,
    options_of_a_wrong_type_are_refused,
    options_as_cri_gives_them_for_an_unknown_type,
    what_is_not_json_is_refused,
    unknown_names_are_not_found,
    a_full_disk_is_told_and_the_shim_goes_on,
    descriptors_do_not_pile_up,
);

async fn sleeper(containerd: &Containerd<'_>) -> Result<(Client, String)> {
    containerd.run(Bundle::sh(containerd.scope, "c", "exec sleep 1000")).await
}

async fn state(client: &Client, id: &str, exec_id: &str) -> Result<api::StateResponse, Status> {
    let request = api::StateRequest { id: id.to_owned(), exec_id: exec_id.to_owned() };
    task(client, "State", &request).await
}

async fn a_checkpoint_is_restored(containerd: &Containerd<'_>) -> Result<()> {
    if !integration_support::require_program("criu") {
        return Ok(());
    }
    if integration_support::run(Command::new("criu").arg("check"))?.code() != 0 {
        integration_support::skip("criu doesn't work on this kernel (`criu check`)");
        return Ok(());
    }
    let script = "n=0; while :; do n=$((n+1)); echo $n >/new; mv /new /count; sleep 0.1; done";
    let (client, id) = containerd.run(Bundle::sh(containerd.scope, "c", script)).await?;
    let dir = containerd.scope.path("b").join(&id);
    let count = || {
        let text = fs::read_to_string(dir.join("rootfs/count")).unwrap_or_default();
        text.trim().parse::<u32>().unwrap_or(0)
    };
    integration_support::wait_for("it to count", || count() > 3)?;
    let images = containerd.scope.make_dir("images")?.to_string_lossy().into_owned();
    let options = CheckpointOptions { exit: true, ..CheckpointOptions::default() };
    let request = api::CheckpointTaskRequest {
        id: id.clone(),
        path: images.clone(),
        options: Some(any("containerd.runc.v1.CheckpointOptions", &options)),
    };
    task::<()>(&client, "Checkpoint", &request).await?;
    ensure!(wait(&client, &id, "").await? == 137);
    delete(&client, &id, "").await?;
    let counted = count();
    let mut request = containerd.request(&id, &dir);
    request.checkpoint = images;
    task::<api::CreateTaskResponse>(&client, "Create", &request).await?;
    let pid = start(&client, &id, "").await?;
    integration_support::wait_for("it to count again", || count() != counted)?;
    ensure!(count() > counted, "it has begun anew: {counted}, then {}", count());
    ensure!(state(&client, &id, "").await?.pid == pid && pid > 0);
    exec(&client, &id, "e", "exit 7").await?;
    ensure!(wait(&client, &id, "e").await? == 7);
    delete(&client, &id, "e").await?;
    task::<()>(&client, "Kill", &kill_request(&id, "", 9)).await?;
    ensure!(wait(&client, &id, "").await? == 137);
    delete(&client, &id, "").await?;
    // criu ends it before it says that it is done, so `checkpointed` comes when it comes.
    let wanted = ["create", "start", "exit", "delete"].repeat(2);
    let lives = || {
        let events = containerd.events().into_iter();
        events.filter(|event| wanted.contains(&event.as_str())).collect::<Vec<_>>()
    };
    while lives().len() < wanted.len() {
        tokio::time::sleep(Duration::from_millis(20)).await; // until the test's deadline
    }
    ensure!(lives() == wanted, "{:?}", containerd.events());
    containerd.event("checkpointed").await?;
    Ok(())
}

async fn a_failed_checkpoint_is_told_and_the_container_goes_on(containerd: &Containerd<'_>) -> Result<()> {
    let (client, id) = sleeper(containerd).await?;
    let images = containerd.scope.path("images");
    let checkpoint = |path: &str, options: Option<prost_types::Any>| api::CheckpointTaskRequest {
        id: id.clone(),
        path: path.to_owned(),
        options,
    };
    refused(task::<()>(&client, "Checkpoint", &checkpoint("", None)).await, Code::InvalidArgument, "path")?;
    let wrong = any("containerd.runc.v1.Options", &Options::default());
    let answer = task::<()>(&client, "Checkpoint", &checkpoint("/x", Some(wrong))).await;
    refused(answer, Code::InvalidArgument, "CheckpointOptions")?;
    // Nobody can restore from a file.
    fs::write(&images, "")?;
    let options = any("containerd.runc.v1.CheckpointOptions", &CheckpointOptions::default());
    let path = images.to_string_lossy();
    let error = task::<()>(&client, "Checkpoint", &checkpoint(&path, Some(options))).await.err();
    ensure!(
        error.as_ref().is_some_and(|e| e.code != Code::Unimplemented && !e.message.is_empty()),
        "{error:?}"
    );
    ensure!(state(&client, &id, "").await?.exited_at.is_none(), "the container has ended");
    exec(&client, &id, "e", "exit 0").await?;
    ensure!(wait(&client, &id, "e").await? == 0, "the container is stuck");
    ensure!(!containerd.events().contains(&"checkpointed".to_owned()));
    Ok(())
}

async fn a_failed_restore_is_told_and_leaves_nothing(containerd: &Containerd<'_>) -> Result<()> {
    use corten_task_api::proto::containerd::v1::types::Status as S;
    let (id, dir) = containerd.bundle(Bundle::sh(containerd.scope, "c", "true"))?;
    let client = containerd.start(&id, &dir, Protocol::Protobuf).await?;
    let mut request = containerd.request(&id, &dir);
    request.checkpoint = containerd.scope.path("no-images").to_string_lossy().into_owned();
    // It is start that restores: until then there is no process.
    ensure!(task::<api::CreateTaskResponse>(&client, "Create", &request).await?.pid == 0);
    ensure!(state(&client, &id, "").await?.status == S::Created as i32);
    refused(task::<()>(&client, "Kill", &kill_request(&id, "", 9)).await, Code::FailedPrecondition, &id)?;
    let error = start(&client, &id, "").await.err();
    ensure!(error.as_ref().is_some_and(|e| e.message.contains("restore")), "{error:?}");
    delete(&client, &id, "").await?;
    refused(state(&client, &id, "").await, Code::NotFound, &id)?;
    containerd.event("delete").await?;
    ensure!(containerd.events() == ["create", "delete"], "{:?}", containerd.events());
    Ok(())
}

async fn pipes_belong_to_whom_the_options_say(containerd: &Containerd<'_>) -> Result<()> {
    let log = containerd.scope.path("log");
    let script = "stat -L -c %u:%g /proc/self/fd/1 /proc/self/fd/2";
    let (id, dir) = containerd.bundle(Bundle::sh(containerd.scope, "c", script))?;
    let client = containerd.start(&id, &dir, Protocol::Protobuf).await?;
    let mut request = containerd.request(&id, &dir);
    let mut options = Options::decode(request.options.context("no options")?.value.as_slice())?;
    (options.io_uid, options.io_gid) = (1234, 5678);
    request.options = Some(any("containerd.runc.v1.Options", &options));
    request.stdout = format!("cri://{}", log.display());
    request.stderr = request.stdout.clone();
    task::<api::CreateTaskResponse>(&client, "Create", &request).await?;
    start(&client, &id, "").await?;
    ensure!(wait(&client, &id, "").await? == 0);
    let seen: Vec<_> = integration_shim::parse_log(&log)?.into_iter().map(|(.., text)| text).collect();
    // The runtime makes the container's user the owner, and leaves the group alone.
    ensure!(seen.len() == 2 && seen.iter().all(|s| s.ends_with(":5678")), "{seen:?}");
    Ok(())
}

/// A runtime that notes how it is called, and whose its output is, before it does what it is told.
fn noting(containerd: &Containerd<'_>, notes: &Path) -> Result<String> {
    let path = containerd.scope.path("noting");
    let text = format!(
        "#!/bin/sh\nexec 3>&1\necho \"$* owner=$(stat -L -c %u:%g /proc/self/fd/3)\" >>{}\nexec {} \"$@\" 3>&-\n",
        notes.display(),
        containerd.runtime.binary().display()
    );
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path.to_string_lossy().into_owned())
}

async fn options_reach_the_runtime(containerd: &Containerd<'_>) -> Result<()> {
    let (id, dir) = containerd.bundle(Bundle::sh(containerd.scope, "c", "exec sleep 1000"))?;
    let client = containerd.start(&id, &dir, Protocol::Protobuf).await?;
    let notes = containerd.scope.path("notes");
    let path = |name: &str| containerd.scope.path(name).to_string_lossy().into_owned();
    let options = Options {
        binary_name: noting(containerd, &notes)?,
        root: path("another-root"),
        no_pivot_root: true,
        no_new_keyring: true,
        io_uid: 1234,
        io_gid: 5678,
        criu_image_path: path("images"),
        criu_work_path: path("work"),
        // For containerd, which has found us already.
        task_api_address: "unix:///nowhere".to_owned(),
        task_api_version: 3,
        ..Options::default()
    };
    let mut request = containerd.request(&id, &dir);
    request.stdout = format!("cri://{}", path("log"));
    request.options = Some(any("containerd.runc.v1.Options", &options));
    task::<api::CreateTaskResponse>(&client, "Create", &request).await?;
    let noted = || Ok::<_, anyhow::Error>(fs::read_to_string(&notes)?);
    let root = format!("--root {}", options.root);
    for wanted in [&root, " create ", " --no-pivot ", " --no-new-keyring ", "owner=1234:5678\n"] {
        ensure!(noted()?.contains(wanted), "no {wanted:?} in {:?}", noted()?);
    }
    ensure!(fs::exists(containerd.scope.path("another-root").join(&id))?, "the runtime has another root");
    start(&client, &id, "").await?;
    // Whether criu can is another question.
    let checkpoint = api::CheckpointTaskRequest { id: id.clone(), ..Default::default() };
    let _ = task::<()>(&client, "Checkpoint", &checkpoint).await;
    for (flag, path) in [("--image-path", &options.criu_image_path), ("--work-path", &options.criu_work_path)]
    {
        let wanted = format!(" {flag} {path} ");
        ensure!(noted()?.contains(&wanted), "no {wanted:?} in {:?}", noted()?);
    }
    fs::write(&notes, "")?;
    // systemd need not be there to be asked for.
    let (other, dir) = containerd.bundle(Bundle::sh(containerd.scope, "d", "true"))?;
    let mut request = containerd.request(&other, &dir);
    let options = Options { systemd_cgroup: true, ..options };
    request.options = Some(any("containerd.runc.v1.Options", &options));
    if task::<api::CreateTaskResponse>(&client, "Create", &request).await.is_ok() {
        delete(&client, &other, "").await?;
    }
    ensure!(noted()?.contains("--systemd-cgroup "), "{:?}", noted()?);
    task::<()>(&client, "Kill", &kill_request(&id, "", 9)).await.ok(); // because criu may have ended it
    wait(&client, &id, "").await?;
    delete(&client, &id, "").await?;
    Ok(())
}

async fn execs_have_states_of_their_own(containerd: &Containerd<'_>) -> Result<()> {
    use corten_task_api::proto::containerd::v1::types::Status as S;
    let (client, id) = sleeper(containerd).await?;
    let pid = exec(&client, &id, "e", "exec sleep 1000").await?;
    let got = state(&client, &id, "e").await?;
    ensure!((got.pid, got.status, got.exec_id.as_str()) == (pid, S::Running as i32, "e"), "{got:?}");
    let pids: api::PidsResponse = task(&client, "Pids", &api::PidsRequest { id: id.clone() }).await?;
    let found = pids.processes.iter().find(|p| p.pid == pid).context("the exec isn't listed")?;
    let details = found.info.as_ref().context("it isn't told from others")?;
    ensure!(details.type_url == "containerd.runc.v1.ProcessDetails");
    ensure!(ProcessDetails::decode(details.value.as_slice())?.exec_id == "e");
    ensure!(pids.processes.iter().filter(|p| p.info.is_some()).count() == 1);
    refused(delete(&client, &id, "e").await, Code::FailedPrecondition, "running")?;
    task::<()>(&client, "Kill", &kill_request(&id, "e", 15)).await?;
    ensure!(wait(&client, &id, "e").await? == 143);
    ensure!(state(&client, &id, "e").await?.status == S::Stopped as i32);
    refused(task::<()>(&client, "Kill", &kill_request(&id, "e", 9)).await, Code::NotFound, "finished")?;
    ensure!(delete(&client, &id, "e").await? == 143);
    refused(state(&client, &id, "e").await, Code::NotFound, "e")?;
    // One that was never started can be taken back.
    let request = api::ExecProcessRequest {
        id: id.clone(),
        exec_id: "f".to_owned(),
        spec: Some(prost_types::Any {
            type_url: String::new(),
            value: integration_shim::process(&["/bin/true"]),
        }),
        ..api::ExecProcessRequest::default()
    };
    task::<()>(&client, "Exec", &request).await?;
    ensure!(state(&client, &id, "f").await?.status == S::Created as i32);
    refused(task::<()>(&client, "Kill", &kill_request(&id, "f", 9)).await, Code::FailedPrecondition, "new")?;
    delete(&client, &id, "f").await?;
    ensure!(state(&client, &id, "").await?.status == S::Running as i32);
    Ok(())
}

async fn nobody_waits_for_what_will_never_run(containerd: &Containerd<'_>) -> Result<()> {
    let (client, id) = sleeper(containerd).await?;
    let add = async |exec_id: &str| {
        let request = api::ExecProcessRequest {
            id: id.clone(),
            exec_id: exec_id.to_owned(),
            spec: Some(prost_types::Any {
                type_url: String::new(),
                value: integration_shim::process(&["/nonexistent"]),
            }),
            ..api::ExecProcessRequest::default()
        };
        task::<()>(&client, "Exec", &request).await
    };
    // As containerd's CRI plugin does it with a probe whose program isn't there: it waits, then starts, then deletes.
    add("e").await?;
    let (waited, deleted) = tokio::join!(wait(&client, &id, "e"), async {
        ensure!(start(&client, &id, "e").await.is_err());
        Ok(delete(&client, &id, "e").await?)
    });
    deleted?;
    refused(waited, Code::NotFound, "deleted before it has run")?;
    // And it goes with its container.
    add("f").await?;
    let (waited, deleted) = tokio::join!(wait(&client, &id, "f"), async {
        task::<()>(&client, "Kill", &kill_request(&id, "", 9)).await?;
        wait(&client, &id, "").await?;
        delete(&client, &id, "").await
    });
    ensure!(deleted? == 137);
    refused(waited, Code::NotFound, "deleted before it has run")
}

async fn a_second_container_of_the_same_name_is_refused(containerd: &Containerd<'_>) -> Result<()> {
    let (client, id) = sleeper(containerd).await?;
    let dir = containerd.scope.path("b").join(&id);
    let again = task::<api::CreateTaskResponse>(&client, "Create", &containerd.request(&id, &dir)).await;
    refused(again, Code::AlreadyExists, &id)?;
    refused(start(&client, &id, "").await, Code::FailedPrecondition, "running")?;
    refused(delete(&client, &id, "").await, Code::FailedPrecondition, "running")?;
    let resume = task::<()>(&client, "Resume", &api::ResumeRequest { id: id.clone() }).await;
    ensure!(resume.as_ref().err().is_none_or(|e| e.code != Code::NotFound), "{resume:?}");
    exec(&client, &id, "e", "exit 0").await?;
    ensure!(wait(&client, &id, "e").await? == 0, "the first one has suffered");
    Ok(())
}

async fn figures_are_typed(containerd: &Containerd<'_>) -> Result<()> {
    let bundle = Bundle::sh(containerd.scope, "c", "exec sleep 1000")
        .set("/linux/resources/memory", serde_json::json!({"limit": 50_000_000}))
        .set("/linux/resources/pids", serde_json::json!({"limit": 77}));
    let (client, id) = containerd.run(bundle).await?;
    // The kernel takes its time to sum up faults, and runc's init to end the threads that it had.
    let counted = async {
        loop {
            let request = api::StatsRequest { id: id.clone() };
            let stats: api::StatsResponse = task(&client, "Stats", &request).await?;
            let stats = stats.stats.context("no figures")?;
            let (faults, tasks) = faults_and_tasks(&stats)?;
            if faults > 0 && tasks == 1 {
                return anyhow::Ok(stats);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let stats = tokio::time::timeout(Duration::from_secs(30), counted)
        .await
        .context("no faults of one task in 30 s")??;
    match stats.type_url.as_str() {
        "io.containerd.cgroups.v1.Metrics" => {
            let m = cgroups::v1::Metrics::decode(stats.value.as_slice())?;
            let (memory, cpu) = (m.memory.context("memory")?, m.cpu.context("cpu")?.usage.context("usage")?);
            let usage = memory.usage.context("usage")?;
            ensure!(usage.usage > 0 && usage.max >= usage.usage && usage.limit.abs_diff(50_000_000) < 4096);
            ensure!(cpu.total > 0 && !cpu.per_cpu.is_empty(), "{cpu:?}");
            let pids = m.pids.context("pids")?;
            ensure!(pids.limit == 77, "{pids:?}");
            ensure!(m.memory_oom_control.is_some() && m.blkio.is_some());
        }
        "io.containerd.cgroups.v2.Metrics" => {
            let m = cgroups::v2::Metrics::decode(stats.value.as_slice())?;
            let (memory, cpu) = (m.memory.context("memory")?, m.cpu.context("cpu")?);
            ensure!(memory.usage > 0 && memory.usage_limit.abs_diff(50_000_000) < 4096);
            ensure!(cpu.usage_usec > 0 && m.memory_events.is_some() && m.io.is_some());
            let pressure = fs::exists("/proc/pressure/memory")?;
            ensure!(memory.psi.is_some() == pressure && cpu.psi.is_some() == pressure, "{memory:?}");
            let pids = m.pids.context("pids")?;
            ensure!(pids.limit == 77, "{pids:?}");
        }
        other => anyhow::bail!("figures of type {other}"),
    }
    let update = |value: &str| api::UpdateTaskRequest {
        id: id.clone(),
        resources: Some(prost_types::Any { type_url: String::new(), value: value.into() }),
        ..api::UpdateTaskRequest::default()
    };
    task::<()>(&client, "Update", &update(r#"{"pids": {"limit": 66}}"#)).await?;
    Ok(())
}

fn faults_and_tasks(stats: &prost_types::Any) -> Result<(u64, u64)> {
    Ok(if stats.type_url == "io.containerd.cgroups.v1.Metrics" {
        let m = cgroups::v1::Metrics::decode(stats.value.as_slice())?;
        (m.memory.context("memory")?.total_pg_fault, m.pids.context("pids")?.current)
    } else {
        let m = cgroups::v2::Metrics::decode(stats.value.as_slice())?;
        (m.memory.context("memory")?.pgfault, m.pids.context("pids")?.current)
    })
}

async fn options_of_a_wrong_type_are_refused(containerd: &Containerd<'_>) -> Result<()> {
    let (id, dir) = containerd.bundle(Bundle::sh(containerd.scope, "c", "exit 6"))?;
    let client = containerd.start(&id, &dir, Protocol::Protobuf).await?;
    let mut request = containerd.request(&id, &dir);
    let good = request.options.replace(any("example.v1.Options", &()));
    let answer = task::<api::CreateTaskResponse>(&client, "Create", &request).await;
    refused(answer, Code::InvalidArgument, "example.v1.Options")?;
    request.options = Some(prost_types::Any {
        type_url: "containerd.runc.v1.Options".to_owned(),
        value: b"\xff\xff\xff".to_vec(),
    });
    let answer = task::<api::CreateTaskResponse>(&client, "Create", &request).await;
    refused(answer, Code::InvalidArgument, "containerd.runc.v1.Options")?;
    request.options = good;
    task::<api::CreateTaskResponse>(&client, "Create", &request).await?;
    start(&client, &id, "").await?;
    ensure!(wait(&client, &id, "").await? == 6);
    Ok(())
}

async fn options_as_cri_gives_them_for_an_unknown_type(containerd: &Containerd<'_>) -> Result<()> {
    let (id, dir) = containerd.bundle(Bundle::sh(containerd.scope, "c", "exit 6"))?;
    let client = containerd.start(&id, &dir, Protocol::Protobuf).await?;
    let mut request = containerd.request(&id, &dir);
    let given = Options::decode(request.options.context("no options")?.value.as_slice())?;
    let body = format!("BinaryName = {:?}\nRoot = {:?}\n", given.binary_name, given.root);
    let table = runtimeoptions::Options { config_body: body.into(), ..runtimeoptions::Options::default() };
    request.options = Some(any("runtimeoptions.v1.Options", &table));
    task::<api::CreateTaskResponse>(&client, "Create", &request).await?;
    let roots = fs::read_dir(&given.root)?.flatten().any(|entry| entry.file_name() == id.as_str());
    ensure!(roots, "the runtime has another root");
    start(&client, &id, "").await?;
    ensure!(wait(&client, &id, "").await? == 6);
    Ok(())
}

async fn what_is_not_json_is_refused(containerd: &Containerd<'_>) -> Result<()> {
    let (client, id) = sleeper(containerd).await?;
    for text in ["", "no", "[]", "{", "\"x\""] {
        let value = Some(prost_types::Any { type_url: String::new(), value: text.into() });
        let update =
            api::UpdateTaskRequest { id: id.clone(), resources: value.clone(), ..Default::default() };
        refused(task::<()>(&client, "Update", &update).await, Code::InvalidArgument, &id)?;
        let exec = api::ExecProcessRequest {
            id: id.clone(),
            exec_id: "e".into(),
            spec: value,
            ..Default::default()
        };
        refused(task::<()>(&client, "Exec", &exec).await, Code::InvalidArgument, &id)?;
    }
    Ok(())
}

async fn unknown_names_are_not_found(containerd: &Containerd<'_>) -> Result<()> {
    let (client, id) = sleeper(containerd).await?;
    for (id, exec_id) in [("nobody", ""), (id.as_str(), "nothing")] {
        let (id, exec_id) = (id.to_owned(), exec_id.to_owned());
        refused(state(&client, &id, &exec_id).await, Code::NotFound, "no ")?;
        refused(start(&client, &id, &exec_id).await, Code::NotFound, "no ")?;
        refused(wait(&client, &id, &exec_id).await, Code::NotFound, "no ")?;
        refused(delete(&client, &id, &exec_id).await, Code::NotFound, "no ")?;
        refused(task::<()>(&client, "Kill", &kill_request(&id, &exec_id, 9)).await, Code::NotFound, "no ")?;
        let resize = api::ResizePtyRequest { id: id.clone(), exec_id: exec_id.clone(), width: 1, height: 1 };
        refused(task::<()>(&client, "ResizePty", &resize).await, Code::NotFound, "no ")?;
        let close = api::CloseIoRequest { id, exec_id, stdin: true };
        refused(task::<()>(&client, "CloseIO", &close).await, Code::NotFound, "no ")?;
    }
    let nobody = || "nobody".to_owned();
    // The id is the first field of all of them.
    let request = api::UpdateTaskRequest { id: nobody(), ..Default::default() };
    for method in ["Pids", "Pause", "Resume", "Stats", "Update", "Checkpoint"] {
        refused(task::<()>(&client, method, &request).await, Code::NotFound, "nobody")?;
    }
    let request = api::ExecProcessRequest { id: nobody(), exec_id: "e".into(), ..Default::default() };
    refused(task::<()>(&client, "Exec", &request).await, Code::NotFound, "nobody")?;
    // Whose shim it is may be asked of anyone.
    let connect: api::ConnectResponse =
        task(&client, "Connect", &api::ConnectRequest { id: "nobody".to_owned() }).await?;
    ensure!(connect.shim_pid > 0 && connect.task_pid == 0);
    Ok(())
}

async fn a_full_disk_is_told_and_the_shim_goes_on(containerd: &Containerd<'_>) -> Result<()> {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let (client, id) = sleeper(containerd).await?;
    let full = containerd.scope.make_dir("full")?;
    let (_, small) = containerd.bundle(Bundle::sh(containerd.scope, "small", "true"))?;
    mount(Some("tmpfs"), &full, Some("tmpfs"), MsFlags::empty(), Some("size=64k"))?;
    let result = async {
        fs::copy(small.join("config.json"), full.join("config.json"))?;
        fs::write(full.join("ballast"), vec![0; 1 << 20]).err().context("it isn't full")?;
        let other = format!("{id}-x");
        let answer =
            task::<api::CreateTaskResponse>(&client, "Create", &containerd.request(&other, &full)).await;
        let error = answer.err().context("it was created")?;
        ensure!(error.message.contains(&*full.to_string_lossy()), "{error:?}");
        refused(state(&client, &other, "").await, Code::NotFound, &other)?;
        mount(None::<&str>, &full, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, None::<&str>)?;
        let answer =
            task::<api::CreateTaskResponse>(&client, "Create", &containerd.request(&other, &full)).await;
        ensure!(answer.is_err());
        exec(&client, &id, "e", "exit 0").await?;
        ensure!(wait(&client, &id, "e").await? == 0, "the shim has suffered");
        Ok(())
    }
    .await;
    umount2(&full, MntFlags::MNT_DETACH)?;
    result
}

async fn descriptors_do_not_pile_up(containerd: &Containerd<'_>) -> Result<()> {
    let (client, id) = sleeper(containerd).await?;
    let pid = fs::read_to_string(containerd.scope.path("b").join(&id).join("shim.pid"))?;
    let open = || Ok::<_, anyhow::Error>(fs::read_dir(format!("/proc/{pid}/fd"))?.count());
    let round = async |n: usize| {
        let name = format!("e{n}");
        exec(&client, &id, &name, "true").await?;
        wait(&client, &id, &name).await?;
        delete(&client, &id, &name).await.map(drop)
    };
    round(0).await?;
    containerd.event("exit e0").await?;
    let before = open()?;
    for n in 1..=20 {
        round(n).await?;
    }
    ensure!(open()? <= before, "{before} descriptors were open, {} are now", open()?);
    Ok(())
}
