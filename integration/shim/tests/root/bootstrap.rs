//! Being started by one containerd or another.

use std::fs;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use corten_task_api::Message;
use corten_task_api::proto::containerd::runc::v1::Options;
use corten_task_api::proto::containerd::runtime::bootstrap::v1::BootstrapResult;
use corten_task_api::proto::containerd::task::v3 as api;
use corten_task_api::proto::containerd::types::RuntimeInfo;
use corten_task_api::services::{TASK, any};
use integration_shim::containerd::{Containerd, Protocol, delete, start, task, wait};
use integration_support::{Bundle, DEADLINE, run_with_deadline};

crate::each_runtime_under_containerd!(every_protocol_starts_a_shim_that_works);
crate::with_containerd!(
    answers_are_exact,
    standard_input_may_be_anything,
    no_shim_stays_that_nobody_knows_of,
    containers_of_a_pod_share_a_shim,
    questions_are_answered,
    a_shim_joins_its_cgroup,
    a_core_of_its_own_or_none,
);

async fn every_protocol_starts_a_shim_that_works(containerd: &Containerd<'_>) -> Result<()> {
    for (name, protocol) in [("a", Protocol::Text), ("b", Protocol::Json), ("c", Protocol::Protobuf)] {
        let (id, dir) = containerd.bundle(Bundle::sh(containerd.scope, name, "exit 4"))?;
        let client = containerd.start(&id, &dir, protocol).await?;
        let created: api::CreateTaskResponse =
            task(&client, "Create", &containerd.request(&id, &dir)).await?;
        ensure!(start(&client, &id, "").await? == created.pid);
        ensure!(wait(&client, &id, "").await? == 4);
        // As containerd 1.x calls it.
        let state = api::StateRequest { id: id.clone(), exec_id: String::new() };
        let state: api::StateResponse = client.call(TASK[0], "State", &state, None).await?;
        ensure!(state.exit_status == 4 && state.pid == created.pid);
        ensure!(delete(&client, &id, "").await? == 4);
        task::<()>(&client, "Shutdown", &api::ShutdownRequest { id, now: false }).await?;
        client.closed().wait().await;
    }
    Ok(())
}

async fn answers_are_exact(containerd: &Containerd<'_>) -> Result<()> {
    let (id, dir) = containerd.bundle(Bundle::sh(containerd.scope, "c", "true"))?;
    let answer = |protocol| -> Result<String> {
        let (mut command, stdin) = containerd.start_command(&id, &dir, protocol);
        Ok(run_with_deadline(&mut command, DEADLINE, &stdin)?.ok()?.stdout)
    };
    let text = answer(Protocol::Text)?;
    ensure!(text.starts_with("unix:///") && !text.ends_with('\n'), "{text:?}");
    ensure!(fs::read_to_string(dir.join("address"))? == text);
    let json: serde_json::Value = serde_json::from_str(&answer(Protocol::Json)?)?;
    ensure!(json == serde_json::json!({"version": 2, "address": text, "protocol": "ttrpc"}), "{json}");
    let result = BootstrapResult::decode(answer(Protocol::Protobuf)?.as_bytes())?;
    let expected = BootstrapResult {
        version: 3,
        address: text,
        protocol: "ttrpc".to_owned(),
        ..BootstrapResult::default()
    };
    ensure!(result == expected, "{result:?}");
    Ok(())
}

async fn standard_input_may_be_anything(containerd: &Containerd<'_>) -> Result<()> {
    let (id, dir) = containerd.bundle(Bundle::sh(containerd.scope, "c", "true"))?;
    let options = any("containerd.runc.v1.Options", &Options::default()).encode_to_vec();
    for stdin in [Vec::new(), options, b"no protobuf at all\n".to_vec(), vec![0xff; 70_000]] {
        let (mut command, _) = containerd.start_command(&id, &dir, Protocol::Text);
        let stdout = run_with_deadline(&mut command, DEADLINE, &stdin)?.ok()?.stdout;
        ensure!(stdout.starts_with("unix:///"), "{stdout:?}");
    }
    // Open, and nobody writes or closes.
    let (mut command, _) = containerd.start_command(&id, &dir, Protocol::Text);
    let (theirs, open) = nix::unistd::pipe()?;
    command.stdin(Stdio::from(theirs)).stdout(Stdio::piped());
    let child = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
    let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await.context("it waits")??;
    ensure!(output.stdout.starts_with(b"unix:///"));
    drop(open);
    Ok(())
}

async fn no_shim_stays_that_nobody_knows_of(containerd: &Containerd<'_>) -> Result<()> {
    let (id, dir) = containerd.bundle(Bundle::sh(containerd.scope, "c", "true"))?;
    let (mut command, _) = containerd.start_command(&id, &dir, Protocol::Text);
    let full = fs::OpenOptions::new().write(true).open("/dev/full")?;
    command.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped());
    let child = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
    let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await.context("it hangs")??;
    let said = String::from_utf8(output.stderr)?;
    ensure!(!output.status.success() && said.contains("tell the address"), "{said}");
    let pid: u32 = fs::read_to_string(dir.join("shim.pid"))?.parse()?;
    ensure!(!integration_shim::runs(pid), "the shim {pid} runs");
    let address = fs::read_to_string(dir.join("address"))?;
    ensure!(!fs::exists(address.trim_start_matches("unix://"))?, "the socket is left");
    Ok(())
}

async fn containers_of_a_pod_share_a_shim(containerd: &Containerd<'_>) -> Result<()> {
    let mut pids = Vec::new();
    for (name, key, group) in [
        ("a", "io.kubernetes.cri.sandbox-id", "pod"),
        ("b", "io.kubernetes.cri.sandbox-id", "pod"),
        ("c", "io.containerd.runc.v2.group", "pod"),
        ("d", "io.kubernetes.cri.sandbox-id", "other"),
        ("e", "unrelated", "pod"),
    ] {
        let mut annotations = serde_json::Map::new();
        annotations.insert(key.to_owned(), group.into());
        let bundle = Bundle::sh(containerd.scope, name, "true").set("/annotations", annotations.into());
        let (id, dir) = containerd.bundle(bundle)?;
        let client = containerd.start(&id, &dir, Protocol::Protobuf).await?;
        let connect = api::ConnectRequest { id };
        pids.push(task::<api::ConnectResponse>(&client, "Connect", &connect).await?.shim_pid);
    }
    let same: Vec<_> = pids.iter().map(|pid| *pid == pids[0]).collect();
    ensure!(same == [true, true, true, false, false], "{pids:?}");
    ensure!(pids[3] != pids[4]);
    Ok(())
}

async fn questions_are_answered(containerd: &Containerd<'_>) -> Result<()> {
    let ask = |flag: &str, stdin: &[u8]| {
        let mut command = std::process::Command::new(&containerd.shim);
        let output = command.arg(flag).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().and_then(
            |mut child| {
                use std::io::Write;
                child.stdin.take().expect("piped").write_all(stdin)?;
                child.wait_with_output()
            },
        )?;
        ensure!(output.status.success(), "{flag}: {output:?}");
        Ok(output.stdout)
    };
    ensure!(String::from_utf8(ask("-v", b"")?)?.contains("Version: "));
    let options = Options {
        binary_name: containerd.runtime.binary().to_string_lossy().into_owned(),
        ..Options::default()
    };
    let options = any("containerd.runc.v1.Options", &options);
    let info = RuntimeInfo::decode(ask("-info", &options.encode_to_vec())?.as_slice())?;
    ensure!(info.name == "containerd-shim-corten-v2" && info.version.is_some(), "{info:?}");
    ensure!(info.options == Some(options));
    let features = info.features.ok_or_else(|| anyhow::anyhow!("no features"))?;
    ensure!(features.type_url == "types.containerd.io/opencontainers/runtime-spec/1/features/Features");
    let features: serde_json::Value = serde_json::from_slice(&features.value)?;
    ensure!(features["ociVersionMax"].is_string(), "{features}");
    Ok(())
}

async fn a_shim_joins_its_cgroup(containerd: &Containerd<'_>) -> Result<()> {
    use corten_task_api::proto::containerd::runtime::bootstrap::v1::{BootstrapParams, Extension};
    let (id, dir) = containerd.bundle(Bundle::sh(containerd.scope, "c", "true"))?;
    let cgroup = containerd.scope.cgroup("shim");
    let (mut command, stdin) = containerd.start_command(&id, &dir, Protocol::Protobuf);
    let options = Options { shim_cgroup: cgroup.clone(), ..Options::default() };
    let mut params = BootstrapParams::decode(stdin.as_slice())?;
    params.extensions = vec![Extension { value: Some(any("containerd.runc.v1.Options", &options)) }];
    // There is none yet.
    let failed = run_with_deadline(&mut command, DEADLINE, &params.encode_to_vec())?.err()?;
    ensure!(failed.stderr.contains(&cgroup), "{}", failed.stderr);
    let place = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"]
        .into_iter()
        .find(|p| fs::metadata(format!("{p}/cgroup.procs")).is_ok());
    let place = format!("{}{cgroup}", place.ok_or_else(|| anyhow::anyhow!("no cgroups"))?);
    fs::create_dir_all(&place)?;
    let (mut command, _) = containerd.start_command(&id, &dir, Protocol::Protobuf);
    let started = run_with_deadline(&mut command, DEADLINE, &params.encode_to_vec())?.ok()?;
    let pid = fs::read_to_string(dir.join("shim.pid"))?;
    let members = fs::read_to_string(format!("{place}/cgroup.procs"))?;
    ensure!(members.lines().any(|line| line == pid), "{members:?} {pid} {}", started.stdout);
    let score = |pid: &str| -> Result<i32> {
        Ok(fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?.trim().parse()?)
    };
    ensure!(score(&pid)? == (score("self")? + 1).min(1000), "the kernel would kill containerd first");
    // The cgroup goes after the shim has.
    let address = BootstrapResult::decode(started.stdout.as_bytes())?.address;
    let path = address.trim_start_matches("unix://").to_owned();
    let client = corten_task_api::ttrpc::Client::connect(std::path::Path::new(&path)).await?;
    task::<()>(&client, "Shutdown", &api::ShutdownRequest { id, now: true }).await?;
    client.closed().wait().await;
    integration_support::wait_for("the cgroup to be empty", || fs::remove_dir(&place).is_ok())?;
    Ok(())
}

async fn a_core_of_its_own_or_none(containerd: &Containerd<'_>) -> Result<()> {
    let (id, dir) = containerd.bundle(Bundle::sh(containerd.scope, "c", "true"))?;
    let (mut command, stdin) = containerd.start_command(&id, &dir, Protocol::Protobuf);
    let done = run_with_deadline(command.env("SCHED_CORE", "1"), DEADLINE, &stdin)?;
    if done.status.success() {
        return Ok(()); // this kernel can
    }
    // Else whoever relies on it is told, and nothing is left.
    ensure!(done.stderr.contains("SCHED_CORE: have a core to itself"), "{}", done.stderr);
    ensure!(!fs::exists(dir.join("shim.pid"))? && !fs::exists(dir.join("address"))?);
    let sockets = fs::read_dir(containerd.scope.path("s")).into_iter().flatten().count();
    ensure!(sockets == 0, "a socket is left");
    Ok(())
}
