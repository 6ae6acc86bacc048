//! One pod's whole life, with the daemon killed in the middle.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use integration_cri::{Node, v1};
use integration_support::http::Request;
use integration_support::wait_for;

#[test]
fn a_pod_from_pull_to_removal() -> Result<()> {
    Node::test("chain", |node| {
        let image = node.busybox()?;
        let (pod, config) = node.pod("web")?;
        let server =
            node.run(&pod, &config, "server", &image.reference, &["workload", "serve", "8080", "hi there"])?;
        let client = node.run(
            &pod,
            &config,
            "client",
            &image.reference,
            &["workload", "log", "100000", "both", "20"],
        )?;
        node.wait_log(&server, "listening")?;

        // Containers of a pod share localhost, the host reaches the pod's address.
        let over_localhost = node.exec_ok(&client, &["workload", "get", "127.0.0.1:8080"])?;
        ensure!(over_localhost == "hi there\n", "{over_localhost}");
        let address: SocketAddr = format!("{}:8080", node.ip(&pod)?).parse()?;
        ensure!(Request::new("GET", "/").send(address)?.text() == "hi there");
        ensure!(node.exec_ok(&client, &["hostname"])? == "web\n");
        ensure!(node.exec(&client, &["sh", "-c", "exit 7"])?.exit_code == 7);

        let stats = node.cri.container_stats(v1::ContainerStatsRequest { container_id: server.clone() })?;
        let stats = stats.stats.context("no stats")?;
        let memory = stats.memory.and_then(|memory| memory.working_set_bytes).context("no memory")?;
        ensure!(memory.value > 0, "{memory:?}");

        kill_and_look_again(node, &server, &client)?;
        ensure!(node.exec_ok(&client, &["workload", "get", "127.0.0.1:8080"])? == "hi there\n");

        node.stop_container(&client, 5)?;
        let status = node.status(&client)?;
        ensure!(status.state() == v1::ContainerState::ContainerExited, "{status:?}");
        node.remove_container(&client)?;
        node.remove_pod(&pod)
    })
}

/// SIGKILLs the daemon, waits until the containers have done something without it, and starts it again: the same
/// containers run, and the log has no gap.
fn kill_and_look_again(node: &mut Node<'_>, server: &str, client: &str) -> Result<()> {
    let before = node.status(server)?;
    let log_path = node.status(client)?.log_path;
    let lines = || std::fs::read_to_string(&log_path).map_or(0, |text| text.lines().count());
    node.daemon.kill()?;
    let at_kill = lines();
    wait_for("the log to grow without a daemon", || lines() > at_kill + 20)?;
    node.restart()?;
    let after = node.status(server)?;
    ensure!(after.state() == v1::ContainerState::ContainerRunning, "{after:?}");
    ensure!(after.started_at == before.started_at && after.id == before.id, "{after:?}");
    let numbers: Vec<u64> = node
        .log(client)?
        .iter()
        .filter(|line| line.stream == "stdout")
        .filter_map(|line| line.text.strip_prefix("line ")?.parse().ok())
        .collect();
    ensure!(
        numbers.windows(2).all(|pair| matches!(pair, [a, b] if a + 1 == *b)),
        "the log has a gap: {numbers:?}"
    );
    ensure!(numbers.first() == Some(&1), "the log doesn't begin at the beginning");
    Ok(())
}

#[test]
fn what_a_kubelet_asks_first() -> Result<()> {
    Node::test("kubelet", |node| {
        let version = node.cri.version(v1::VersionRequest::default())?;
        ensure!(version.runtime_api_version == "v1" && !version.runtime_name.is_empty(), "{version:?}");
        ensure!(version.runtime_version.split('.').count() >= 3, "no semantic version: {version:?}");
        let status = node.cri.status(v1::StatusRequest { verbose: true })?;
        let conditions = status.status.context("no status")?.conditions;
        for kind in ["RuntimeReady", "NetworkReady"] {
            let condition =
                conditions.iter().find(|c| c.r#type == kind).with_context(|| format!("no {kind}"))?;
            ensure!(condition.status, "{condition:?}");
        }
        let config = node.cri.runtime_config(v1::RuntimeConfigRequest::default())?;
        let driver = config.linux.context("no linux section")?.cgroup_driver;
        ensure!(driver == v1::CgroupDriver::Cgroupfs as i32, "{driver}");
        node.cri.update_runtime_config(v1::UpdateRuntimeConfigRequest::default())?;
        let info = node.cri.image_fs_info(v1::ImageFsInfoRequest::default())?;
        let filesystem = info.image_filesystems.first().context("no image filesystem")?;
        ensure!(filesystem.timestamp > 0, "{filesystem:?}");
        let mountpoint = filesystem.fs_id.as_ref().map(|id| id.mountpoint.clone()).unwrap_or_default();
        ensure!(std::path::Path::new(&mountpoint).is_dir(), "{mountpoint}");
        ensure!(node.pods()?.is_empty() && node.containers()?.is_empty());
        Ok(())
    })
}
