//! containerd's CRI plugin runs pods by our shim and our runtime, as a kubelet asks for them.

use anyhow::{Context, Result, ensure};
use integration_interop::{Containerd, Flavour, Pods, has, limit, push_busybox, v1};
use integration_support::wait_for;

#[test]
fn a_pod_by_our_shim() -> Result<()> {
    Containerd::test(Flavour::Debian, "cri-shim", |containerd| a_pod(containerd, "corten-shim"))
}

#[test]
fn a_pod_by_runcs_shim() -> Result<()> {
    Containerd::test(Flavour::Debian, "cri-runc", |containerd| a_pod(containerd, "corten"))
}

#[test]
fn a_pod_by_our_shim_newest() -> Result<()> {
    Containerd::test(Flavour::Given, "cri-newest", |containerd| a_pod(containerd, "corten-shim"))
}

/// By the Sandbox API: the shim makes the pod, without a pause process.
#[test]
fn a_pod_by_our_shims_sandbox_newest() -> Result<()> {
    Containerd::test(Flavour::Given, "cri-sandbox", |containerd| a_pod(containerd, "corten-pod"))
}

/// Two containers in one pod: they share its network and host name, each has its own log, limits and end.
fn a_pod(containerd: &mut Containerd<'_>, handler: &str) -> Result<()> {
    let image = push_busybox(&containerd.registry)?;
    let pods = Pods::new(containerd.scope, &containerd.socket(), &image, handler)?;
    let result = with_pods(containerd, &pods);
    result.with_context(|| format!("containerd's log:\n{}", containerd.log()))
}

fn with_pods(containerd: &Containerd<'_>, pods: &Pods<'_>) -> Result<()> {
    let pod = pods.run_pod("web")?;
    let server = pods.run(&pod, "server", &["workload", "serve", "8080", "hi there"])?;
    let client = pods.run(&pod, "client", &["workload", "log", "100000", "both", "20"])?;
    has(&pods.wait_log(&server, "listening")?, " stdout F ")?;
    has(&pods.wait_log(&client, "stderr F error line 3")?, "stdout F line 3")?;

    let (code, out, _) = pods.exec(&client, &["workload", "get", "127.0.0.1:8080"])?;
    ensure!(code == 0 && out == "hi there\n", "{code} {out}");
    ensure!(pods.exec(&client, &["hostname"])? == (0, "web\n".into(), String::new()));
    let failing = pods.exec(&client, &["sh", "-c", "echo out; echo err >&2; exit 7"])?;
    ensure!(failing == (7, "out\n".into(), "err\n".into()), "{failing:?}");

    let cgroup = format!("{}/{server}", containerd.scope.cgroup_parent());
    ensure!(limit("memory", &cgroup, "memory.limit_in_bytes")? == (128 << 20).to_string());
    ensure!(limit("cpu", &cgroup, "cpu.shares")? == "102");
    wait_for("the stats", || working_set(pods, &server).is_ok_and(|bytes| bytes > 0))?;
    let resources = v1::LinuxContainerResources { memory_limit_in_bytes: 200 << 20, ..Default::default() };
    pods.cri.update_container_resources(v1::UpdateContainerResourcesRequest {
        container_id: server.clone(),
        linux: Some(resources),
        ..Default::default()
    })?;
    ensure!(limit("memory", &cgroup, "memory.limit_in_bytes")? == (200 << 20).to_string());

    pods.stop(&client, 1)?;
    let status = pods.status(&client)?;
    ensure!(status.state() == v1::ContainerState::ContainerExited && status.exit_code != 0, "{status:?}");
    pods.remove(&client)?;
    let failed = pods.run(&pod, "failed", &["sh", "-c", "exit 3"])?;
    wait_for("the container to end", || {
        pods.status(&failed).is_ok_and(|status| status.state() == v1::ContainerState::ContainerExited)
    })?;
    ensure!(pods.status(&failed)?.exit_code == 3);
    let missing = pods.run(&pod, "missing", &["no-such-program"]).err().context("it started")?;
    has(&format!("{missing:#}"), "executable file not found in $PATH")?;

    pods.remove_pod(&pod)
}

fn working_set(pods: &Pods<'_>, id: &str) -> Result<u64> {
    let stats = pods.cri.container_stats(v1::ContainerStatsRequest { container_id: id.to_owned() })?.stats;
    let memory = stats.and_then(|stats| stats.memory).and_then(|memory| memory.working_set_bytes);
    Ok(memory.context("no memory")?.value)
}
