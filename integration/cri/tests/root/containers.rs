//! Containers: how they end, how they are stopped, what they get, what they may use.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration_cri::{Node, container, v1};

#[test]
fn how_a_container_ended() -> Result<()> {
    Node::test("ended", |node| {
        let image = node.busybox()?;
        let (pod, config) = node.pod("one")?;
        for (name, command, code, reason) in [
            ("fine", &["workload", "exit", "0"][..], 0, "Completed"),
            ("failed", &["workload", "exit", "42"], 42, "Error"),
            ("killed", &["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137, "Error"),
            ("out-of-memory", &["workload", "allocate", "300000000"], 137, "OOMKilled"),
        ] {
            let id = node.run(&pod, &config, name, &image.reference, command)?;
            let status = node.wait_exited(&id)?;
            ensure!(status.exit_code == code && status.reason == reason, "{name}: {status:?}");
            ensure!(status.created_at > 0 && status.started_at >= status.created_at, "{name}: {status:?}");
            ensure!(status.finished_at >= status.started_at, "{name}: {status:?}");
        }
        node.remove_pod(&pod)
    })
}

#[test]
fn a_program_that_is_not_there() -> Result<()> {
    Node::test("noprogram", |node| {
        let image = node.busybox()?;
        let (pod, config) = node.pod("one")?;
        let id = node.create(&pod, &config, &container("c", &image.reference, &["/bin/nothing-here"]))?;
        let error = format!("{:#}", node.start_container(&id).expect_err("it isn't there"));
        ensure!(error.contains("nothing-here"), "{error}");
        let status = node.status(&id)?;
        ensure!(status.state() == v1::ContainerState::ContainerExited, "{status:?}");
        ensure!(status.exit_code != 0 && !status.reason.is_empty(), "{status:?}");
        node.remove_container(&id)?;
        // What is right works in the same pod afterwards.
        let id = node.run(&pod, &config, "c", &image.reference, &["workload", "echo", "fine"])?;
        node.wait_log(&id, "fine")?;
        node.remove_pod(&pod)
    })
}

#[test]
fn stopping_is_polite_and_then_is_not() -> Result<()> {
    Node::test("stop", |node| {
        let image = node.busybox()?;
        let (pod, config) = node.pod("one")?;
        let polite = node.run(&pod, &config, "polite", &image.reference, &["workload", "sleep"])?;
        let stubborn =
            node.run(&pod, &config, "stubborn", &image.reference, &["workload", "ignore-sigterm"])?;
        node.wait_log(&stubborn, "ready")?;
        let start = Instant::now();
        node.stop_container(&polite, 30)?;
        ensure!(start.elapsed() < Duration::from_secs(10), "SIGTERM had no effect");
        ensure!(node.status(&polite)?.exit_code == 0, "{:?}", node.status(&polite)?);
        let start = Instant::now();
        node.stop_container(&stubborn, 2)?;
        ensure!(start.elapsed() >= Duration::from_secs(2), "SIGKILL came early");
        ensure!(start.elapsed() < Duration::from_secs(10), "SIGKILL came late");
        ensure!(node.status(&stubborn)?.exit_code == 137, "{:?}", node.status(&stubborn)?);
        ensure!(node.log(&stubborn)?.iter().any(|line| line.text == "ignored: SIGTERM"));
        node.stop_container(&stubborn, 0)?;
        node.remove_pod(&pod)
    })
}

#[test]
fn a_container_is_created_once_and_started_once() -> Result<()> {
    Node::test("once", |node| {
        let image = node.busybox()?;
        let (pod, config) = node.pod("one")?;
        let wanted = container("c", &image.reference, &["workload", "sleep"]);
        let id = node.create(&pod, &config, &wanted)?;
        ensure!(node.status(&id)?.state() == v1::ContainerState::ContainerCreated);
        ensure!(node.create(&pod, &config, &wanted)? == id, "a kubelet's retry made another container");
        node.start_container(&id)?;
        node.start_container(&id).expect_err("started twice");
        ensure!(node.status(&id)?.state() == v1::ContainerState::ContainerRunning);
        node.remove_pod(&pod)
    })
}

#[test]
fn configuration_arrives() -> Result<()> {
    Node::test("config", |node| {
        let image = node.busybox()?;
        let (pod, config) = node.pod("one")?;
        let shared = node.scope.make_dir("volume")?;
        std::fs::write(shared.join("in"), "from the host")?;
        let mut wanted = container("c", &image.reference, &["workload", "sleep"]);
        wanted.working_dir = "/usr/bin".to_owned();
        wanted.envs = vec![v1::KeyValue { key: "GREETING".to_owned(), value: "hello \u{2713}".into() }];
        let mount = v1::Mount {
            container_path: "/data".to_owned(),
            host_path: shared.to_string_lossy().into_owned(),
            ..Default::default()
        };
        let read_only = v1::Mount { container_path: "/data-ro".to_owned(), readonly: true, ..mount.clone() };
        wanted.mounts = vec![mount, read_only];
        if let Some(context) = wanted.linux.as_mut().and_then(|linux| linux.security_context.as_mut()) {
            context.run_as_user = Some(v1::Int64Value { value: 1000 });
            context.run_as_group = Some(v1::Int64Value { value: 1000 });
            context.supplemental_groups = vec![2000];
            context.no_new_privs = true;
            context.readonly_rootfs = true;
        }
        std::fs::set_permissions(&shared, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
        let id = node.create(&pod, &config, &wanted)?;
        node.start_container(&id)?;
        let ids = node.exec_ok(&id, &["workload", "id"])?;
        ensure!(ids.contains("uid: 1000\ngid: 1000\n") && ids.contains("2000"), "{ids}");
        ensure!(node.exec_ok(&id, &["workload", "pwd"])? == "/usr/bin\n");
        let response = node.exec(&id, &["sh", "-c", "printf %s \"$GREETING\""])?;
        ensure!(response.stdout == "hello \u{2713}".as_bytes(), "{response:?}");
        ensure!(node.exec_ok(&id, &["cat", "/data/in"])? == "from the host");
        node.exec_ok(&id, &["sh", "-c", "echo back > /data/out"])?;
        ensure!(std::fs::read_to_string(shared.join("out"))? == "back\n");
        for path in ["/data-ro/x", "/etc/x"] {
            let response = node.exec(&id, &["touch", path])?;
            ensure!(response.exit_code != 0, "{path} can be written to");
        }
        let caps = node.exec_ok(&id, &["workload", "caps"])?;
        ensure!(caps.contains("NoNewPrivs: 1"), "{caps}");
        let status = node.status(&id)?;
        ensure!(status.mounts.len() == 2 && status.image_ref.contains("sha256:"), "{status:?}");
        node.remove_pod(&pod)
    })
}

/// CRI's values are bytes, config.json's are text: what can't be carried over is refused by name, not garbled.
#[test]
fn an_environment_that_is_not_text() -> Result<()> {
    Node::test("envbytes", |node| {
        let image = node.busybox()?;
        let (pod, config) = node.pod("one")?;
        let mut wanted = container("c", &image.reference, &["sh", "-c", "printf %s \"$GREETING\""]);
        wanted.envs = vec![v1::KeyValue { key: "GREETING".to_owned(), value: b"hello \xff".to_vec() }];
        let error = format!("{:#}", node.create(&pod, &config, &wanted).expect_err("not text"));
        ensure!(error.contains("GREETING"), "{error}");
        ensure!(node.containers()?.is_empty());
        node.remove_pod(&pod)
    })
}

#[test]
fn default_security() -> Result<()> {
    Node::test("security", |node| {
        let image = node.busybox()?;
        let (pod, config) = node.pod("one")?;
        let mut wanted = container("c", &image.reference, &["workload", "sleep"]);
        if let Some(context) = wanted.linux.as_mut().and_then(|linux| linux.security_context.as_mut()) {
            context.seccomp = Some(v1::SecurityProfile {
                profile_type: v1::security_profile::ProfileType::RuntimeDefault.into(),
                localhost_ref: String::new(),
            });
        }
        let id = node.create(&pod, &config, &wanted)?;
        node.start_container(&id)?;
        let caps = node.exec_ok(&id, &["workload", "caps"])?;
        ensure!(caps.contains("CapBnd: 00000000a80425fb"), "{caps}");
        ensure!(caps.contains("Seccomp: 2") && caps.contains("oom_score_adj: 900"), "{caps}");
        let refused = node.exec(&id, &["workload", "unshare", "user"])?;
        ensure!(String::from_utf8_lossy(&refused.stdout).contains("EPERM"), "{refused:?}");
        let kcore = node.exec_ok(&id, &["sh", "-c", "cat /proc/kcore | wc -c"])?;
        ensure!(kcore.trim() == "0", "/proc/kcore isn't masked: {kcore}");
        ensure!(node.exec(&id, &["sh", "-c", "echo 1 > /proc/sys/kernel/msgmax"])?.exit_code != 0);
        node.remove_pod(&pod)
    })
}

#[test]
fn resources_are_limited_and_can_be_changed() -> Result<()> {
    Node::test("resources", |node| {
        let memory = std::path::Path::new("/sys/fs/cgroup/memory");
        let image = node.busybox()?;
        let (pod, config) = node.pod("one")?;
        let id = node.run(&pod, &config, "c", &image.reference, &["workload", "sleep"])?;
        if memory.is_dir() {
            let limits = limits(&memory.join(node.scope.cgroup_parent().trim_start_matches('/')))?;
            ensure!(limits.contains(&(128 << 20)), "no cgroup below the pod's has the limit: {limits:?}");
        }
        let resources = v1::LinuxContainerResources {
            memory_limit_in_bytes: 64 << 20,
            cpu_shares: 512,
            ..Default::default()
        };
        let request = v1::UpdateContainerResourcesRequest {
            container_id: id.clone(),
            linux: Some(resources),
            ..Default::default()
        };
        node.cri.update_container_resources(request)?;
        if memory.is_dir() {
            let limits = limits(&memory.join(node.scope.cgroup_parent().trim_start_matches('/')))?;
            ensure!(limits.contains(&(64 << 20)) && !limits.contains(&(128 << 20)), "{limits:?}");
        }
        let stats = node.cri.list_container_stats(v1::ListContainerStatsRequest::default())?.stats;
        let stats = stats.first().context("no stats")?;
        let cpu = stats.cpu.as_ref().and_then(|cpu| cpu.usage_core_nano_seconds).context("no CPU time")?;
        ensure!(cpu.value > 0, "{stats:?}");
        node.remove_pod(&pod)
    })
}

/// The memory limits of the cgroups in a directory.
fn limits(dir: &std::path::Path) -> Result<Vec<u64>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
    let text = entries
        .flatten()
        .filter_map(|e| std::fs::read_to_string(e.path().join("memory.limit_in_bytes")).ok());
    Ok(text.filter_map(|text| text.trim().parse().ok()).collect())
}
