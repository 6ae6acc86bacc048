//! `cortend` and the shim are killed in the middle of things: the daemon comes back, a retry works, nothing is left.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration_cri::{Node, container, pod, v1};
use integration_support::wait_for;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Sends a request in a thread of its own and kills the daemon `after` so long; what became of the request is open.
fn kill_during(
    node: &mut Node<'_>,
    after: Duration,
    call: impl FnOnce(&integration_cri::Client) + Send + 'static,
) -> Result<()> {
    let client = node.cri.another()?;
    let caller = std::thread::spawn(move || call(&client));
    // Not a wait for something: the moments at which it is killed are what is tested.
    std::thread::sleep(after);
    node.daemon.kill()?;
    caller.join().map_err(|_| anyhow::anyhow!("the caller panicked"))?;
    node.restart()
}

/// Moments from 0 to about 200 ms, denser at the beginning.
fn moments() -> impl Iterator<Item = Duration> {
    (0..10_u64).map(|n| Duration::from_micros(n * n * 2_000 + n * 500))
}

#[test]
fn killed_during_run_pod_sandbox() -> Result<()> {
    Node::test("killpod", |node| {
        for (n, after) in moments().enumerate() {
            let config = pod(node.scope, &format!("p{n}"));
            let request = v1::RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
            kill_during(node, after, move |cri| drop(cri.run_pod_sandbox(request)))
                .with_context(|| format!("killed after {after:?}"))?;
            let id = node.run_pod(&config).with_context(|| format!("the retry after {after:?}"))?;
            ensure!(!node.ip(&id)?.is_empty());
            node.remove_pod(&id)?;
            ensure!(node.pods()?.is_empty(), "killed after {after:?}: {:?}", node.pods()?);
        }
        Ok(())
    })
}

#[test]
fn killed_during_create_and_start() -> Result<()> {
    Node::test("killcreate", |node| {
        let image = node.busybox()?;
        let (pod, config) = node.pod("one")?;
        for (n, after) in moments().enumerate() {
            let name = format!("c{n}");
            let wanted = container(&name, &image.reference, &["workload", "sleep"]);
            let request = v1::CreateContainerRequest {
                pod_sandbox_id: pod.clone(),
                config: Some(wanted.clone()),
                sandbox_config: Some(config.clone()),
            };
            kill_during(node, after, move |cri| {
                if let Ok(created) = cri.create_container(request) {
                    cri.start_container(v1::StartContainerRequest { container_id: created.container_id })
                        .ok();
                }
            })
            .with_context(|| format!("killed after {after:?}"))?;
            let id =
                node.create(&pod, &config, &wanted).with_context(|| format!("the retry after {after:?}"))?;
            let status = node.status(&id)?;
            if status.state() == v1::ContainerState::ContainerCreated {
                node.start_container(&id).with_context(|| format!("start after {after:?}"))?;
            }
            // One that was killed while it was being started may have ended; it must say so, and go.
            let status = node.status(&id)?;
            if status.state() == v1::ContainerState::ContainerRunning {
                ensure!(node.exec_ok(&id, &["echo", "alive"])? == "alive\n");
            }
            node.stop_container(&id, 0)?;
            node.remove_container(&id)?;
            ensure!(node.containers()?.is_empty(), "killed after {after:?}");
        }
        node.remove_pod(&pod)
    })
}

#[test]
fn killed_during_pull() -> Result<()> {
    Node::test("killpull", |node| {
        let pushed = node.push_busybox()?;
        for after in moments() {
            let image = Some(v1::ImageSpec { image: pushed.reference.clone(), ..Default::default() });
            let request = v1::PullImageRequest { image, ..Default::default() };
            kill_during(node, after, move |cri| drop(cri.pull_image(request)))
                .with_context(|| format!("killed after {after:?}"))?;
            node.pull(&pushed.reference).with_context(|| format!("the retry after {after:?}"))?;
            node.nothing_left().with_context(|| format!("after the kill at {after:?}"))?;
        }
        Ok(())
    })
}

#[test]
fn killed_during_stop_and_removal() -> Result<()> {
    Node::test("killstop", |node| {
        let image = node.busybox()?;
        for (n, after) in moments().enumerate().step_by(2) {
            let (id, config) = node.pod(&format!("p{n}"))?;
            node.run(&id, &config, "c", &image.reference, &["workload", "sleep"])?;
            let pod_sandbox_id = id.clone();
            kill_during(node, after, move |cri| {
                drop(cri.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id }))
            })
            .with_context(|| format!("killed after {after:?}"))?;
            node.remove_pod(&id)?;
            ensure!(node.pods()?.is_empty() && node.containers()?.is_empty(), "killed after {after:?}");
        }
        Ok(())
    })
}

#[test]
fn exits_while_the_daemon_is_away_are_known() -> Result<()> {
    Node::test("away", |node| {
        let image = node.busybox()?;
        let (pod, config) = node.pod("one")?;
        let gate = node.scope.make_dir("gate")?;
        let mut wanted = container(
            "c",
            &image.reference,
            &["sh", "-c", "while [ ! -e /gate/go ]; do sleep 0.05; done; exit 23"],
        );
        wanted.mounts = vec![v1::Mount {
            container_path: "/gate".to_owned(),
            host_path: gate.to_string_lossy().into_owned(),
            ..Default::default()
        }];
        let id = node.create(&pod, &config, &wanted)?;
        node.start_container(&id)?;
        node.daemon.kill()?;
        std::fs::write(gate.join("go"), "")?;
        let exit = node.daemon.state().join("containers").join(&id).join("exit.json");
        wait_for("the shim to have written the exit down", || exit.exists())?;
        node.restart()?;
        let status = node.wait_exited(&id)?;
        ensure!(status.exit_code == 23 && status.finished_at > 0, "{status:?}");
        node.remove_pod(&pod)
    })
}

/// The shim's process: the one whose working directory is the pod's.
fn shim(node: &Node<'_>, pod: &str) -> Result<i32> {
    let dir = node.daemon.state().join("pods").join(pod);
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let exe = std::fs::read_link(entry.path().join("exe")).unwrap_or_default();
        let is_shim = exe.file_name().is_some_and(|name| name == "containerd-shim-corten-v2");
        if is_shim && std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == dir) {
            return Ok(pid);
        }
    }
    anyhow::bail!("there is no shim in {}", dir.display())
}

#[test]
fn a_dead_shim_takes_its_containers_along_and_nothing_else() -> Result<()> {
    Node::test("deadshim", |node| {
        let image = node.busybox()?;
        let (pod, config) = node.pod("one")?;
        let (other, other_config) = node.pod("two")?;
        let id = node.run(&pod, &config, "c", &image.reference, &["workload", "sleep"])?;
        let bystander = node.run(&other, &other_config, "b", &image.reference, &["workload", "sleep"])?;
        kill(Pid::from_raw(shim(node, &pod)?), Signal::SIGKILL)?;
        let status = node.wait_exited(&id)?;
        ensure!(status.exit_code != 0, "{status:?}");
        ensure!(node.exec_ok(&bystander, &["echo", "alive"])? == "alive\n");
        node.remove_pod(&pod)?;
        node.remove_pod(&other)
    })
}

#[test]
fn a_shim_that_dies_while_the_daemon_is_away() -> Result<()> {
    Node::test("bothdead", |node| {
        let image = node.busybox()?;
        let (pod, config) = node.pod("one")?;
        let id = node.run(&pod, &config, "c", &image.reference, &["workload", "sleep"])?;
        let shim = shim(node, &pod)?;
        node.daemon.kill()?;
        kill(Pid::from_raw(shim), Signal::SIGKILL)?;
        node.restart()?;
        let status = node.wait_exited(&id)?;
        ensure!(status.exit_code != 0, "{status:?}");
        node.remove_pod(&pod)
    })
}
