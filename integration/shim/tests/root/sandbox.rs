//! The Sandbox service: pods without a pause process.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use corten_task_api::Message;
use corten_task_api::proto::containerd::runtime::sandbox::v1 as api;
use corten_task_api::proto::containerd::task::v3 as task_api;
use corten_task_api::proto::cri::v1::{
    IdMapping, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
    PodSandboxConfig, UserNamespace,
};
use corten_task_api::services::{SANDBOX, any};
use corten_task_api::ttrpc::{Client, Code, Status};
use integration_shim::containerd::{Containerd, Protocol, refused, start, task, wait};
use integration_support::{Bundle, DEADLINE};

crate::each_runtime_under_containerd!(
    containers_run_in_a_sandbox,
    containers_share_pids,
    stop_ends_containers_in_time,
);
crate::with_containerd!(
    a_sandbox_with_users_of_its_own,
    a_given_network_is_joined_and_the_hosts_is_left,
    the_end_of_a_pods_init_is_the_sandboxs,
    wrong_calls_are_refused,
    what_the_init_cant_set_up_fails_the_start,
    a_shim_whose_sandbox_failed_goes,
    a_stop_while_it_starts_is_kept_to,
    a_shim_whose_file_system_was_unmounted_has_an_init,
    figures_are_the_pods_cgroups,
);

async fn call<A: Default + Message>(
    client: &Client,
    method: &str,
    request: &impl Message,
) -> Result<A, Status> {
    client.call(SANDBOX, method, request, Some(DEADLINE)).await
}

fn config(options: NamespaceOption) -> PodSandboxConfig {
    let security_context = Some(LinuxSandboxSecurityContext { namespace_options: Some(options) });
    let sysctls = [("net.ipv4.ip_unprivileged_port_start".to_owned(), "80".to_owned())].into();
    PodSandboxConfig {
        hostname: "a-pod".to_owned(),
        linux: Some(LinuxPodSandboxConfig { security_context, sysctls, ..LinuxPodSandboxConfig::default() }),
        ..PodSandboxConfig::default()
    }
}

fn usual() -> NamespaceOption {
    NamespaceOption { pid: NamespaceMode::Container as i32, ..NamespaceOption::default() }
}

/// A shim with a sandbox that has been created.
async fn create(
    containerd: &Containerd<'_>,
    config: &PodSandboxConfig,
    netns: &str,
) -> Result<(Client, String)> {
    let id = containerd.scope.id("pod");
    let dir = containerd.scope.make_dir(&format!("b/{id}"))?;
    let client = containerd.start(&id, &dir, Protocol::Protobuf).await?;
    let request = api::CreateSandboxRequest {
        sandbox_id: id.clone(),
        bundle_path: dir.to_string_lossy().into_owned(),
        netns_path: netns.to_owned(),
        options: Some(any("runtime.v1.PodSandboxConfig", config)),
        ..api::CreateSandboxRequest::default()
    };
    call::<api::CreateSandboxResponse>(&client, "CreateSandbox", &request).await?;
    Ok((client, id))
}

async fn start_sandbox(client: &Client, id: &str) -> Result<u32, Status> {
    let request = api::StartSandboxRequest { sandbox_id: id.to_owned() };
    let answer: api::StartSandboxResponse = call(client, "StartSandbox", &request).await?;
    Ok(answer.pid)
}

async fn status(client: &Client, id: &str) -> Result<api::SandboxStatusResponse, Status> {
    let request = api::SandboxStatusRequest { sandbox_id: id.to_owned(), verbose: true };
    call(client, "SandboxStatus", &request).await
}

async fn stop(client: &Client, id: &str, timeout_secs: u32) -> Result<(), Status> {
    let request = api::StopSandboxRequest { sandbox_id: id.to_owned(), timeout_secs };
    call::<api::StopSandboxResponse>(client, "StopSandbox", &request).await.map(drop)
}

async fn shutdown(client: &Client, id: &str) -> Result<()> {
    let request = api::ShutdownSandboxRequest { sandbox_id: id.to_owned() };
    call::<api::ShutdownSandboxResponse>(client, "ShutdownSandbox", &request).await?;
    tokio::time::timeout(DEADLINE, client.closed().wait()).await.context("the shim stays")
}

fn namespace(pid: impl std::fmt::Display, kind: &str) -> Result<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).with_context(|| format!("{kind} of {pid}"))
}

/// As containerd's CRI plugin puts containers into a pod: by the namespaces of the sandbox's PID.
fn inside(bundle: Bundle, pid: u32, kinds: &[&str]) -> Bundle {
    let join = |bundle: Bundle, kind: &&str| {
        let file = match *kind {
            "network" => "net",
            other => other,
        };
        bundle.namespace(kind, Some(Path::new(&format!("/proc/{pid}/ns/{file}"))))
    };
    kinds.iter().fold(bundle, join)
}

/// Runs a container to its end; what it has written to /out.
async fn run(
    containerd: &Containerd<'_>,
    client: &Client,
    name: &str,
    pid: u32,
    kinds: &[&str],
    script: &str,
) -> Result<String> {
    run_bundle(containerd, client, name, inside(Bundle::sh(containerd.scope, name, script), pid, kinds)).await
}

async fn run_bundle(
    containerd: &Containerd<'_>,
    client: &Client,
    name: &str,
    bundle: Bundle,
) -> Result<String> {
    let out = containerd.scope.path(&format!("{name}.out"));
    let (id, dir) = bundle_in(containerd, bundle.without("/hostname"))?;
    let mut request = containerd.request(&id, &dir);
    request.stdout = format!("file://{}", out.display());
    request.stderr = request.stdout.clone();
    task::<task_api::CreateTaskResponse>(client, "Create", &request).await?;
    start(client, &id, "").await?;
    let status = wait(client, &id, "").await?;
    integration_shim::containerd::delete(client, &id, "").await?;
    let text = fs::read_to_string(&out)?;
    ensure!(status == 0, "{name} ended with {status}: {text}");
    Ok(text)
}

fn bundle_in(containerd: &Containerd<'_>, bundle: Bundle) -> Result<(String, PathBuf)> {
    containerd.bundle(bundle)
}

async fn containers_run_in_a_sandbox(containerd: &Containerd<'_>) -> Result<()> {
    let (client, id) = create(containerd, &config(usual()), "").await?;
    ensure!(status(&client, &id).await?.state == "SANDBOX_NOTREADY");
    let pid = start_sandbox(&client, &id).await?;
    let got = status(&client, &id).await?;
    ensure!((got.pid, got.state.as_str()) == (pid, "SANDBOX_READY") && got.created_at.is_some(), "{got:?}");
    ensure!(got.info["netNamespace"] == format!("/proc/{pid}/ns/net"), "{:?}", got.info);
    let info: serde_json::Value = serde_json::from_str(&got.info["info"])?;
    let network = info["runtimeSpec"]["linux"]["namespaces"]
        .as_array()
        .and_then(|all| all.iter().find(|n| n["type"] == "network"))
        .context("no network namespace is told")?;
    ensure!(network["path"] == format!("/proc/{pid}/ns/net"), "{info}");
    for kind in ["net", "ipc", "uts"] {
        ensure!(namespace(pid, kind)? != namespace("self", kind)?, "{kind} is the host's");
    }
    // No process but the shim's.
    let thread = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let leader =
        thread.lines().find_map(|line| line.strip_prefix("Tgid:")).context("no Tgid")?.trim().to_owned();
    let connect = task_api::ConnectRequest { id: id.clone() };
    let shim = task::<task_api::ConnectResponse>(&client, "Connect", &connect).await?.shim_pid;
    ensure!(leader == shim.to_string(), "{leader} {shim}");
    ensure!(namespace(shim, "net")? == namespace("self", "net")?, "the shim itself has moved");
    let script = "hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ip link show lo | grep -c UP";
    let out = run(containerd, &client, "c", pid, &["network", "ipc", "uts"], script).await?;
    ensure!(out == "a-pod\n80\n1\n", "{out:?}");
    // A shim with a sandbox stays, whatever becomes of containers.
    task::<()>(&client, "Shutdown", &task_api::ShutdownRequest { id: id.clone(), now: false }).await?;
    call::<api::PingResponse>(&client, "PingSandbox", &api::PingRequest { sandbox_id: id.clone() }).await?;
    let platform: api::PlatformResponse =
        call(&client, "Platform", &api::PlatformRequest { sandbox_id: id.clone() }).await?;
    ensure!(platform.platform.is_some_and(|p| p.os == "linux" && !p.architecture.is_empty()));
    stop(&client, &id, 0).await?;
    ensure!(status(&client, &id).await?.exited_at.is_some());
    let wait: api::WaitSandboxResponse =
        call(&client, "WaitSandbox", &api::WaitSandboxRequest { sandbox_id: id.clone() }).await?;
    ensure!(wait.exit_status == 0 && wait.exited_at.is_some());
    integration_support::wait_for("the thread to end", || !Path::new(&format!("/proc/{pid}")).exists())?;
    stop(&client, &id, 0).await?;
    shutdown(&client, &id).await
}

async fn containers_share_pids(containerd: &Containerd<'_>) -> Result<()> {
    let (client, id) = create(containerd, &config(NamespaceOption::default()), "").await?;
    let pid = start_sandbox(&client, &id).await?;
    ensure!(namespace(pid, "pid")? != namespace("self", "pid")?);
    let kinds = ["network", "ipc", "uts", "pid"];
    let out =
        run(containerd, &client, "c", pid, &kinds, "hostname; readlink /proc/1/exe; cat /proc/1/cmdline")
            .await?;
    ensure!(out.starts_with("a-pod\n") && out.contains("pod-init"), "{out:?}");
    // Who may trace the pod's init finds nothing there, and can't write what it executes: that's the shim's file. Seen to fail
    // with the file executed as it is: "Text file busy", which it is no more when no shim runs.
    let script = "for f in root cwd; do echo $f:$(ls -A /proc/1/$f/); done; \
                  for f in /proc/1/fd/*; do echo $f:$(readlink $f); done; \
                  grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs)' /proc/1/status; \
                  exec 9</proc/1/exe; (echo overwritten >/proc/self/fd/9) 2>&1 | sed 's/.*: //'";
    let bundle = Bundle::sh(containerd.scope, "tracer", script).edit(|config| {
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = serde_json::json!(["CAP_SYS_PTRACE"]);
        }
    });
    let out = run_bundle(containerd, &client, "tracer", inside(bundle, pid, &kinds)).await?;
    let nobody = "65534\t65534\t65534\t65534";
    let none = "0000000000000000";
    let caps: String = ["Inh", "Prm", "Eff", "Bnd", "Amb"].map(|set| format!("Cap{set}:\t{none}\n")).concat();
    let wanted = format!(
        "root:\ncwd:\n/proc/1/fd/0:/dev/null\n/proc/1/fd/1:/dev/null\n/proc/1/fd/2:/dev/null\n\
         Uid:\t{nobody}\nGid:\t{nobody}\nGroups:\t \n{caps}NoNewPrivs:\t1\nRead-only file system\n"
    );
    ensure!(out == wanted, "{out:?}\n{wanted:?}");
    shutdown(&client, &id).await?;
    integration_support::wait_for("the init to end", || !integration_shim::runs(pid))?;
    Ok(())
}

async fn stop_ends_containers_in_time(containerd: &Containerd<'_>) -> Result<()> {
    let (client, id) = create(containerd, &config(usual()), "").await?;
    let pid = start_sandbox(&client, &id).await?;
    let mut ids = Vec::new();
    for (name, script) in [
        ("polite", "trap 'exit 5' TERM; while true; do sleep 0.1; done"),
        ("deaf", "trap '' TERM; while true; do sleep 0.1; done"),
    ] {
        let bundle = inside(Bundle::sh(containerd.scope, name, script), pid, &["network"]);
        let (id, dir) = bundle_in(containerd, bundle)?;
        task::<task_api::CreateTaskResponse>(&client, "Create", &containerd.request(&id, &dir)).await?;
        start(&client, &id, "").await?;
        ids.push(id);
    }
    let waiting = {
        let (client, id) = (client.clone(), id.clone());
        tokio::spawn(async move {
            let request = api::WaitSandboxRequest { sandbox_id: id };
            call::<api::WaitSandboxResponse>(&client, "WaitSandbox", &request).await
        })
    };
    // The shells may not have come to their traps yet: without one PID 1 is deaf to SIGTERM, too.
    stop(&client, &id, 2).await?;
    ensure!(waiting.await??.exit_status == 0);
    let polite = wait(&client, &ids[0], "").await?;
    ensure!([5, 137].contains(&polite), "{polite}");
    ensure!(wait(&client, &ids[1], "").await? == 137);
    // Takes away what is left.
    shutdown(&client, &id).await
}

async fn a_sandbox_with_users_of_its_own(containerd: &Containerd<'_>) -> Result<()> {
    let map = || vec![IdMapping { host_id: 100_000, container_id: 0, length: 65536 }];
    let userns = UserNamespace { uids: map(), gids: map(), ..UserNamespace::default() };
    let (client, id) =
        create(containerd, &config(NamespaceOption { userns_options: Some(userns), ..usual() }), "").await?;
    let pid = start_sandbox(&client, &id).await?;
    ensure!(namespace(pid, "user")? != namespace("self", "user")?);
    let maps = fs::read_to_string(format!("/proc/{pid}/uid_map"))?;
    ensure!(maps.split_whitespace().eq(["0", "100000", "65536"]), "{maps}");
    let uid = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse::<u32>().ok())
    };
    ensure!(uid() == Some(165_534), "the init isn't nobody of its users: {:?}", uid());
    ensure!(namespace(pid, "net")? != namespace("self", "net")?);
    ensure!(namespace(pid, "pid")? == namespace("self", "pid")?);
    shutdown(&client, &id).await?;
    integration_support::wait_for("the init to end", || !integration_shim::runs(pid))?;
    Ok(())
}

async fn a_given_network_is_joined_and_the_hosts_is_left(containerd: &Containerd<'_>) -> Result<()> {
    // A network namespace that a thread of ours is in.
    let (ready, path) = std::sync::mpsc::channel();
    let (keep, kept) = std::sync::mpsc::channel::<()>();
    let holder = std::thread::spawn(move || {
        let made = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET);
        let _ = ready.send(made.map(|()| format!("/proc/{}/ns/net", nix::unistd::gettid())));
        let _ = kept.recv();
    });
    let path = path.recv()??;
    let (client, id) = create(containerd, &config(usual()), &path).await?;
    let pid = start_sandbox(&client, &id).await?;
    ensure!(namespace(pid, "net")? == fs::read_link(&path)?);
    shutdown(&client, &id).await?;
    drop(keep);
    holder.join().map_err(|_| anyhow::anyhow!("panicked"))?;
    fs::remove_dir_all(containerd.scope.path("b").join(&id))?;
    let node = NamespaceMode::Node as i32;
    let mut host = config(NamespaceOption { network: node, ipc: node, ..usual() });
    host.linux.as_mut().context("linux")?.sysctls.clear();
    let (client, id) = create(containerd, &host, "").await?;
    let pid = start_sandbox(&client, &id).await?;
    for kind in ["net", "ipc", "uts"] {
        ensure!(namespace(pid, kind)? == namespace("self", kind)?, "{kind} isn't the host's");
    }
    shutdown(&client, &id).await
}

async fn the_end_of_a_pods_init_is_the_sandboxs(containerd: &Containerd<'_>) -> Result<()> {
    let (client, id) = create(containerd, &config(NamespaceOption::default()), "").await?;
    let pid = start_sandbox(&client, &id).await?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGKILL)?;
    let wait: api::WaitSandboxResponse =
        call(&client, "WaitSandbox", &api::WaitSandboxRequest { sandbox_id: id.clone() }).await?;
    ensure!(wait.exit_status == 137, "{wait:?}");
    let got = status(&client, &id).await?;
    ensure!(got.state == "SANDBOX_NOTREADY" && got.pid == 0 && got.exited_at.is_some(), "{got:?}");
    shutdown(&client, &id).await
}

async fn wrong_calls_are_refused(containerd: &Containerd<'_>) -> Result<()> {
    let (client, id) = create(containerd, &config(usual()), "/nonexistent/netns").await?;
    let create = api::CreateSandboxRequest { sandbox_id: "another".to_owned(), ..Default::default() };
    let again = call::<api::CreateSandboxResponse>(&client, "CreateSandbox", &create).await;
    refused(again, Code::AlreadyExists, &id)?;
    refused(start_sandbox(&client, "nobody").await, Code::NotFound, "nobody")?;
    refused(status(&client, "nobody").await, Code::NotFound, "nobody")?;
    refused(stop(&client, "nobody", 0).await, Code::NotFound, "nobody")?;
    refused(start_sandbox(&client, &id).await, Code::NotFound, "/nonexistent/netns")?;
    let metrics = api::SandboxMetricsRequest { sandbox_id: id.clone() };
    let metrics = call::<api::SandboxMetricsResponse>(&client, "SandboxMetrics", &metrics).await;
    refused(metrics, Code::FailedPrecondition, "cgroup")?;
    refused(call::<()>(&client, "UpdateSandbox", &()).await, Code::Unimplemented, "UpdateSandbox")?;
    shutdown(&client, &id).await
}

async fn what_the_init_cant_set_up_fails_the_start(containerd: &Containerd<'_>) -> Result<()> {
    let map = || vec![IdMapping { host_id: 100_000, container_id: 0, length: 65536 }];
    let userns = UserNamespace { uids: map(), gids: map(), ..UserNamespace::default() };
    let mut config = config(NamespaceOption { userns_options: Some(userns), ..usual() });
    config.linux.as_mut().context("linux")?.sysctls =
        [("net.ipv4.no_such".to_owned(), "1".to_owned())].into();
    let (client, id) = create(containerd, &config, "").await?;
    for _ in 0..2 {
        let failed = start_sandbox(&client, &id).await;
        refused(failed, Code::Internal, "set the sysctl net.ipv4.no_such: No such file")?;
        ensure!(status(&client, &id).await?.state == "SANDBOX_NOTREADY");
    }
    shutdown(&client, &id).await
}

async fn a_shim_whose_sandbox_failed_goes(containerd: &Containerd<'_>) -> Result<()> {
    let id = containerd.scope.id("pod");
    let dir = containerd.scope.make_dir(&format!("b/{id}"))?;
    let client = containerd.start(&id, &dir, Protocol::Protobuf).await?;
    let request = api::CreateSandboxRequest {
        sandbox_id: id.clone(),
        options: Some(any("runtime.v1.Another", &())),
        ..api::CreateSandboxRequest::default()
    };
    let failed = call::<api::CreateSandboxResponse>(&client, "CreateSandbox", &request).await;
    refused(failed, Code::InvalidArgument, "runtime.v1.Another")?;
    shutdown(&client, &id).await
}

async fn a_stop_while_it_starts_is_kept_to(containerd: &Containerd<'_>) -> Result<()> {
    let (client, id) = create(containerd, &config(NamespaceOption::default()), "").await?;
    // Which of them comes to its end first is the machine's business.
    let (started, stopped) = tokio::join!(start_sandbox(&client, &id), stop(&client, &id, 0));
    stopped?;
    if started.is_err() {
        refused(started, Code::FailedPrecondition, "stopped meanwhile")?;
    }
    let got = status(&client, &id).await?;
    ensure!(got.state == "SANDBOX_NOTREADY" && got.pid == 0 && got.exited_at.is_some(), "{got:?}");
    shutdown(&client, &id).await
}

/// The mount that the init is else executed from can't be had then.
async fn a_shim_whose_file_system_was_unmounted_has_an_init(containerd: &Containerd<'_>) -> Result<()> {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let id = containerd.scope.id("pod");
    let dir = containerd.scope.make_dir(&format!("b/{id}"))?;
    let place = containerd.scope.make_dir("place")?;
    mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    let (usual, stdin) = containerd.start_command(&id, &dir, Protocol::Protobuf);
    // By another process: a fork of one of our threads may hold what we write to, and then it can't be executed.
    let mut copy = std::process::Command::new("cp");
    let copied = integration_support::run(copy.arg(&containerd.shim).arg(place.join("shim")));
    let started = copied.and_then(|copied| copied.ok()).and_then(|_| {
        let mut command = std::process::Command::new(place.join("shim"));
        command.current_dir(&dir).args(usual.get_args());
        command.envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
        integration_support::run_with_deadline(&mut command, DEADLINE, &stdin)?.ok()
    });
    umount2(&place, MntFlags::MNT_DETACH)?;
    started?;
    let address = fs::read_to_string(dir.join("address"))?;
    let client = Client::connect(Path::new(address.trim_start_matches("unix://"))).await?;
    let request = api::CreateSandboxRequest {
        sandbox_id: id.clone(),
        options: Some(any("runtime.v1.PodSandboxConfig", &config(NamespaceOption::default()))),
        ..api::CreateSandboxRequest::default()
    };
    call::<api::CreateSandboxResponse>(&client, "CreateSandbox", &request).await?;
    let pid = start_sandbox(&client, &id).await?;
    let exe = fs::read_link(format!("/proc/{pid}/exe"))?;
    ensure!(exe.to_string_lossy().starts_with("/memfd:pod-init"), "{}", exe.display());
    let overwritten = fs::File::options().write(true).open(format!("/proc/{pid}/exe")).err();
    ensure!(overwritten.is_some(), "the init can be overwritten");
    shutdown(&client, &id).await
}

async fn figures_are_the_pods_cgroups(containerd: &Containerd<'_>) -> Result<()> {
    let mut config = config(usual());
    config.linux.as_mut().context("linux")?.cgroup_parent = containerd.scope.cgroup_parent();
    let (client, id) = create(containerd, &config, "").await?;
    let pid = start_sandbox(&client, &id).await?;
    let bundle = inside(Bundle::sh(containerd.scope, "c", "exec sleep 1000"), pid, &["network"]);
    let (task_id, dir) = bundle_in(containerd, bundle)?;
    task::<task_api::CreateTaskResponse>(&client, "Create", &containerd.request(&task_id, &dir)).await?;
    let request = api::SandboxMetricsRequest { sandbox_id: id.clone() };
    let answer: api::SandboxMetricsResponse = call(&client, "SandboxMetrics", &request).await?;
    let metric = answer.metrics.context("no figures")?;
    ensure!(metric.id == id && metric.timestamp.is_some());
    let data = metric.data.context("no data")?;
    ensure!(data.type_url.starts_with("io.containerd.cgroups.v") && !data.value.is_empty(), "{data:?}");
    shutdown(&client, &id).await
}
