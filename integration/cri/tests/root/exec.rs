//! ExecSync: what probes and lifecycle hooks live on.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use integration_cri::{Node, v1};
use tonic::Code;

fn with_container(name: &str, body: impl FnOnce(&Node<'_>, &str) -> Result<()>) -> Result<()> {
    Node::test(name, |node| {
        let image = node.busybox()?;
        let (pod, config) = node.pod("one")?;
        let id = node.run(&pod, &config, "c", &image.reference, &["workload", "sleep"])?;
        body(node, &id)?;
        node.remove_pod(&pod)
    })
}

fn request(id: &str, command: &[&str], timeout: i64) -> v1::ExecSyncRequest {
    let cmd = command.iter().map(|word| (*word).to_owned()).collect();
    v1::ExecSyncRequest { container_id: id.to_owned(), cmd, timeout }
}

#[test]
fn output_and_exit_code() -> Result<()> {
    with_container("output", |node, id| {
        let response = node.exec(id, &["sh", "-c", "echo out; echo err >&2; exit 3"])?;
        ensure!(response.stdout == b"out\n" && response.stderr == b"err\n", "{response:?}");
        ensure!(response.exit_code == 3, "{response:?}");
        ensure!(node.exec(id, &["sh", "-c", "kill -9 $$"])?.exit_code == 137);
        Ok(())
    })
}

#[test]
fn a_timeout_kills_the_whole_tree() -> Result<()> {
    with_container("timeout", |node, id| {
        let start = Instant::now();
        let command = ["sh", "-c", "sleep 4321 & sleep 4321"];
        let error = node.cri.exec_sync(request(id, &command, 1)).expect_err("it sleeps for longer");
        ensure!(error.code() == Code::DeadlineExceeded, "{error:?}");
        ensure!(start.elapsed() < Duration::from_secs(10));
        integration_support::wait_for("the tree to be gone", || {
            node.exec(id, &["sh", "-c", "cat /proc/[0-9]*/cmdline | grep -c 4321"])
                .is_ok_and(|r| r.stdout.starts_with(b"0") || r.stdout.starts_with(b"1"))
        })
    })
}

#[test]
fn a_child_that_keeps_the_output_open_does_not_keep_us() -> Result<()> {
    with_container("holder", |node, id| {
        let start = Instant::now();
        let response = node.exec(id, &["sh", "-c", "echo done; sleep 30 & exit 0"])?;
        ensure!(response.stdout == b"done\n" && response.exit_code == 0, "{response:?}");
        ensure!(start.elapsed() < Duration::from_secs(10), "waited for the child: {:?}", start.elapsed());
        Ok(())
    })
}

#[test]
fn huge_output_is_cut() -> Result<()> {
    with_container("huge", |node, id| {
        let response = node.exec(id, &["sh", "-c", "head -c 20000000 /dev/zero"])?;
        ensure!(
            response.exit_code == 0 && response.stdout.len() <= 16 << 20,
            "{} bytes",
            response.stdout.len()
        );
        ensure!(response.stdout.len() >= 1 << 20, "{} bytes", response.stdout.len());
        Ok(())
    })
}

#[test]
fn errors_name_the_program_and_the_container() -> Result<()> {
    with_container("execerrors", |node, id| {
        let error = match node.cri.exec_sync(request(id, &["/bin/nothing-here"], 10)) {
            Err(status) => status.message().to_owned(),
            Ok(response) => {
                ensure!(response.exit_code != 0, "{response:?}");
                String::from_utf8_lossy(&response.stderr).into_owned()
            }
        };
        ensure!(error.contains("nothing-here"), "{error}");
        let error = node.cri.exec_sync(request("nobody", &["true"], 10)).expect_err("there is nobody");
        ensure!(error.code() == Code::NotFound && error.message().contains("nobody"), "{error:?}");
        node.stop_container(id, 0)?;
        let error = node.cri.exec_sync(request(id, &["true"], 10)).expect_err("it doesn't run");
        ensure!(
            error.message().contains("not running") || error.code() == Code::FailedPrecondition,
            "{error:?}"
        );
        Ok(())
    })
}

#[test]
fn streaming_is_unimplemented_for_now() -> Result<()> {
    with_container("streaming", |node, id| {
        let request = v1::ExecRequest {
            container_id: id.to_owned(),
            cmd: vec!["true".to_owned()],
            stdout: true,
            ..Default::default()
        };
        let error = node.cri.exec(request).expect_err("there is no streaming server yet");
        ensure!(error.code() == Code::Unimplemented, "{error:?}");
        Ok(())
    })
}

#[test]
fn many_at_once() -> Result<()> {
    with_container("manyexecs", |node, id| {
        std::thread::scope(|threads| {
            let handles: Vec<_> = (0..10)
                .map(|n| {
                    let client = node.cri.another();
                    threads.spawn(move || -> Result<()> {
                        let response = client?.exec_sync(request(id, &["echo", &n.to_string()], 20))?;
                        ensure!(response.stdout == format!("{n}\n").into_bytes(), "{response:?}");
                        Ok(())
                    })
                })
                .collect();
            handles.into_iter().try_for_each(|handle| handle.join().expect("a thread panicked"))
        })
    })
}
