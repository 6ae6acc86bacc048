//! Sandboxes: network, names, namespaces, listing, idempotency.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use integration_cri::{Node, pod, v1};
use integration_support::http::Request;
use tonic::Code;

fn status(node: &Node<'_>, id: &str) -> Result<v1::PodSandboxStatus> {
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
    node.cri.pod_sandbox_status(request)?.status.context("no status")
}

#[test]
fn status_says_what_was_asked_for() -> Result<()> {
    Node::test("status", |node| {
        let (id, config) = node.pod("one")?;
        let status = status(node, &id)?;
        ensure!(status.state() == v1::PodSandboxState::SandboxReady, "{status:?}");
        ensure!(status.metadata == config.metadata, "{status:?}");
        ensure!(status.labels == config.labels && status.annotations == config.annotations, "{status:?}");
        ensure!(status.created_at > 1_600_000_000_000_000_000, "{status:?}");
        ensure!(status.network.is_some_and(|network| !network.ip.is_empty()));
        node.remove_pod(&id)
    })
}

#[test]
fn the_same_request_again_yields_the_same_pod() -> Result<()> {
    Node::test("again", |node| {
        let (id, config) = node.pod("one")?;
        ensure!(node.run_pod(&config)? == id, "a kubelet's retry made another pod");
        ensure!(node.pods()? == std::slice::from_ref(&id));
        let mut next = config;
        if let Some(metadata) = next.metadata.as_mut() {
            metadata.attempt = 1;
        }
        node.stop_pod(&id)?;
        let second = node.run_pod(&next)?;
        ensure!(second != id, "a new attempt is a new pod");
        node.remove_pod(&second)?;
        node.remove_pod(&id)
    })
}

#[test]
fn requests_at_the_same_time_make_one_pod() -> Result<()> {
    Node::test("coalesce", |node| {
        let config = pod(node.scope, "one");
        let request = v1::RunPodSandboxRequest { config: Some(config), ..Default::default() };
        let ids = std::thread::scope(|threads| {
            let handles: Vec<_> = (0..4)
                .map(|_| {
                    let (client, request) = (node.cri.another(), request.clone());
                    threads.spawn(move || anyhow::Ok(client?.run_pod_sandbox(request)?.pod_sandbox_id))
                })
                .collect();
            handles.into_iter().map(|h| h.join().expect("a thread panicked")).collect::<Result<Vec<_>>>()
        })?;
        let first = ids.first().context("no id")?;
        ensure!(ids.iter().all(|id| id == first), "{ids:?}");
        node.remove_pod(first)
    })
}

#[test]
fn stop_and_remove_are_idempotent() -> Result<()> {
    Node::test("idempotent", |node| {
        let image = node.busybox()?;
        let (id, config) = node.pod("one")?;
        node.run(&id, &config, "c", &image.reference, &["workload", "sleep"])?;
        node.stop_pod(&id)?;
        node.stop_pod(&id)?;
        let stopped = status(node, &id)?;
        ensure!(stopped.state() == v1::PodSandboxState::SandboxNotready, "{stopped:?}");
        ensure!(
            node.daemon.leases().is_empty(),
            "the address was not given back: {:?}",
            node.daemon.leases()
        );
        node.remove_pod(&id)?;
        node.remove_pod(&id)?;
        ensure!(node.containers()?.is_empty(), "removal takes the containers along");
        // Unknown ones are as good as removed.
        node.remove_pod("nobody")?;
        node.stop_container("nobody", 0)?;
        node.remove_container("nobody")
    })
}

#[test]
fn a_running_pod_is_removed_with_all_it_has() -> Result<()> {
    Node::test("force", |node| {
        let image = node.busybox()?;
        let (id, config) = node.pod("one")?;
        node.run(&id, &config, "stubborn", &image.reference, &["workload", "ignore-sigterm"])?;
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: id };
        node.cri.remove_pod_sandbox(request)?;
        Ok(())
    })
}

#[test]
fn unknown_pods_are_not_found() -> Result<()> {
    Node::test("unknown", |node| {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: "nobody".to_owned(), verbose: false };
        let error = node.cri.pod_sandbox_status(request).expect_err("status of nobody");
        ensure!(error.code() == Code::NotFound && error.message().contains("nobody"), "{error:?}");
        let config = pod(node.scope, "one");
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: "nobody".to_owned(),
            config: Some(integration_cri::container("c", "image", &["true"])),
            sandbox_config: Some(config),
        };
        let error = node.cri.create_container(request).expect_err("a container in nobody");
        ensure!(error.code() == Code::NotFound && error.message().contains("nobody"), "{error:?}");
        Ok(())
    })
}

#[test]
fn lists_are_filtered() -> Result<()> {
    Node::test("filter", |node| {
        let image = node.busybox()?;
        let (one, config) = node.pod("one")?;
        let (two, _) = node.pod("two")?;
        node.stop_pod(&two)?;
        let container = node.run(&one, &config, "c", &image.reference, &["workload", "sleep"])?;
        let list = |filter: v1::PodSandboxFilter| -> Result<Vec<String>> {
            let request = v1::ListPodSandboxRequest { filter: Some(filter) };
            Ok(node.cri.list_pod_sandbox(request)?.items.into_iter().map(|pod| pod.id).collect())
        };
        let ready = v1::PodSandboxStateValue { state: v1::PodSandboxState::SandboxReady.into() };
        ensure!(
            list(v1::PodSandboxFilter { state: Some(ready), ..Default::default() })?
                == std::slice::from_ref(&one)
        );
        let label = [("app".to_owned(), "two".to_owned())].into();
        ensure!(
            list(v1::PodSandboxFilter { label_selector: label, ..Default::default() })?
                == std::slice::from_ref(&two)
        );
        ensure!(
            list(v1::PodSandboxFilter { id: one.clone(), ..Default::default() })?
                == std::slice::from_ref(&one)
        );
        let filter = v1::ContainerFilter { pod_sandbox_id: two.clone(), ..Default::default() };
        let request = v1::ListContainersRequest { filter: Some(filter) };
        ensure!(node.cri.list_containers(request)?.containers.is_empty());
        let filter = v1::ContainerFilter { pod_sandbox_id: one.clone(), ..Default::default() };
        let found = node.cri.list_containers(v1::ListContainersRequest { filter: Some(filter) })?.containers;
        ensure!(found.iter().map(|c| &c.id).eq([&container]), "{found:?}");
        node.remove_pod(&one)?;
        node.remove_pod(&two)
    })
}

#[test]
fn dns_hosts_and_hostname() -> Result<()> {
    Node::test("dns", |node| {
        let image = node.busybox()?;
        let (id, config) = node.pod("named")?;
        let container = node.run(&id, &config, "c", &image.reference, &["workload", "sleep"])?;
        let resolv = node.exec_ok(&container, &["cat", "/etc/resolv.conf"])?;
        for line in ["nameserver 10.96.0.10", "search default.svc.cluster.local", "options ndots:5"] {
            ensure!(resolv.contains(line), "{resolv}");
        }
        ensure!(node.exec_ok(&container, &["cat", "/etc/hostname"])? == "named\n");
        ensure!(
            node.exec_ok(&container, &["sh", "-c", "echo x > /dev/shm/y && df /dev/shm | grep -c shm"])?
                == "1\n"
        );
        node.remove_pod(&id)
    })
}

#[test]
fn ports_of_the_host_lead_into_the_pod() -> Result<()> {
    Node::test("ports", |node| {
        let image = node.busybox()?;
        let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut config = pod(node.scope, "one");
        config.port_mappings = vec![v1::PortMapping {
            protocol: v1::Protocol::Tcp.into(),
            container_port: 8080,
            host_port: i32::from(free),
            host_ip: String::new(),
        }];
        let id = node.run_pod(&config)?;
        let container =
            node.run(&id, &config, "c", &image.reference, &["workload", "serve", "8080", "mapped"])?;
        node.wait_log(&container, "listening")?;
        // Over the bridge's own address: loopback needs route_localnet, which not every machine may set.
        let ip = node.ip(&id)?;
        let gateway =
            ip.rsplit_once('.').map(|(net, _)| format!("{net}.1:{free}")).context("no IPv4 address")?;
        let address: SocketAddr = gateway.parse()?;
        ensure!(Request::new("GET", "/").send(address)?.text() == "mapped");
        node.remove_pod(&id)
    })
}

#[test]
fn the_hosts_network() -> Result<()> {
    Node::test("hostnet", |node| {
        let image = node.busybox()?;
        let mut config = pod(node.scope, "one");
        let host = v1::NamespaceMode::Node.into();
        if let Some(options) = config
            .linux
            .as_mut()
            .and_then(|linux| linux.security_context.as_mut())
            .and_then(|context| context.namespace_options.as_mut())
        {
            options.network = host;
        }
        let id = node.run_pod(&config)?;
        let mut container = integration_cri::container("c", &image.reference, &["workload", "sleep"]);
        if let Some(options) = container
            .linux
            .as_mut()
            .and_then(|linux| linux.security_context.as_mut())
            .and_then(|context| context.namespace_options.as_mut())
        {
            options.network = host;
        }
        let container = node.create(&id, &config, &container)?;
        node.start_container(&container)?;
        let ours = std::fs::read_link("/proc/self/ns/net")?;
        let theirs = node.exec_ok(&container, &["readlink", "/proc/self/ns/net"])?;
        ensure!(theirs.trim() == ours.to_string_lossy(), "{theirs}");
        ensure!(node.daemon.leases().is_empty());
        node.remove_pod(&id)
    })
}

#[test]
fn containers_share_the_pods_namespaces_and_no_others() -> Result<()> {
    Node::test("namespaces", |node| {
        let image = node.busybox()?;
        let (id, config) = node.pod("one")?;
        let a = node.run(&id, &config, "a", &image.reference, &["workload", "sleep"])?;
        let b = node.run(&id, &config, "b", &image.reference, &["workload", "sleep"])?;
        let of = |container: &str| node.exec_ok(container, &["workload", "namespaces"]);
        let (first, second) = (of(&a)?, of(&b)?);
        for (kind, shared) in [("net", true), ("ipc", true), ("uts", true), ("pid", false), ("mnt", false)] {
            let line = first.lines().find(|line| line.starts_with(kind)).context("no such namespace")?;
            ensure!(second.contains(line) == shared, "{kind}: {first}\n{second}");
        }
        node.remove_pod(&id)
    })
}

#[test]
fn a_shared_pid_namespace_has_an_init() -> Result<()> {
    Node::test("pidns", |node| {
        let image = node.busybox()?;
        let shared = v1::NamespaceMode::Pod.into();
        let mut config = pod(node.scope, "one");
        if let Some(options) = config
            .linux
            .as_mut()
            .and_then(|linux| linux.security_context.as_mut())
            .and_then(|context| context.namespace_options.as_mut())
        {
            options.pid = shared;
        }
        let id = node.run_pod(&config)?;
        let mut ids = Vec::new();
        for name in ["a", "b"] {
            let mut container = integration_cri::container(name, &image.reference, &["workload", "sleep"]);
            if let Some(options) = container
                .linux
                .as_mut()
                .and_then(|linux| linux.security_context.as_mut())
                .and_then(|context| context.namespace_options.as_mut())
            {
                options.pid = shared;
            }
            let container = node.create(&id, &config, &container)?;
            node.start_container(&container)?;
            ids.push(container);
        }
        let container = ids.first().context("no container")?;
        let processes = node.exec_ok(container, &["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"])?;
        ensure!(processes.matches("workload sleep").count() == 2, "{processes}");
        ensure!(!node.exec_ok(container, &["cat", "/proc/1/comm"])?.contains("workload"));
        node.remove_pod(&id)
    })
}
