//! create, start, kill, wait, delete.

use std::time::Duration;

use anyhow::{Result, ensure};
use corten_task::{Stats, TaskStatus};
use corten_task_api::proto::containerd::task::v3 as api;
use corten_task_api::services::TASK;
use corten_task_api::ttrpc::Code;
use integration_shim::Pod;
use integration_support::{Bundle, Kind};
use serde_json::Value;

crate::each_runtime!(
    a_container_runs_and_is_deleted,
    exit_codes_and_signals,
    waits_answer_after_the_end_and_all_of_them,
    kill_and_delete_of_a_created_container,
    a_created_container_ends_by_sigterm,
    wrong_order_is_refused,
    unknown_ids_are_not_found,
    the_same_id_twice_is_refused,
    a_failed_create_leaves_nothing_and_can_be_repeated,
    the_root_file_system_is_mounted,
    a_container_that_is_oom_killed,
    what_a_container_without_pid_namespace_leaves_is_killed,
    orphans_without_pid_namespace_are_reaped,
    containers_of_a_pod_share_a_pid_namespace,
    stats_pids_pause_and_update,
);

async fn a_container_runs_and_is_deleted(pod: &Pod<'_>) -> Result<()> {
    let request = pod.request("c", Bundle::sh(pod.scope, "c", "echo hello; echo world >&2; exit 3"))?;
    let (id, bundle) = (request.id.clone(), request.bundle.clone());
    let pid = pod.shim.create(request).await?;
    ensure!(pod.shim.state(&id).await? == (TaskStatus::Created, pid));
    ensure!(pod.shim.start(&id).await? == pid);
    let exit = pod.shim.wait(&id).await?;
    ensure!(exit.status == 3 && exit.exited_at_ns > 0 && !exit.oom_killed, "{exit:?}");
    let record: Value = serde_json::from_slice(&std::fs::read(bundle.join("exit.json"))?)?;
    ensure!(record["exit_status"] == 3 && record["exited_at_ns"] == exit.exited_at_ns, "{record}");
    let task = pod.task(&id).await?;
    ensure!(
        task.status == TaskStatus::Stopped && task.exit == Some(exit) && task.started_at_ns > 0,
        "{task:?}"
    );
    ensure!(pod.shim.delete(&id).await?.status == 3);
    ensure!(pod.shim.list().await?.is_empty());
    let mut log = pod.log("c")?;
    log.sort();
    let line = |stream: &str, text: &str| (stream.to_owned(), "F".to_owned(), text.to_owned());
    ensure!(log == [line("stderr", "world"), line("stdout", "hello")], "{log:?}");
    Ok(())
}

async fn exit_codes_and_signals(pod: &Pod<'_>) -> Result<()> {
    for (name, script, status) in [("zero", "exit 0", 0), ("max", "exit 255", 255), ("nil", "kill -9 $$", 0)]
    {
        let id = pod.sh(name, script).await?;
        // PID 1 can't kill itself: that one just ends.
        ensure!(pod.shim.wait(&id).await?.status == status, "{name}");
        pod.shim.delete(&id).await?;
    }
    for (name, signal) in [("kill", 9), ("realtime", 40)] {
        let id = pod.sh(name, "exec sleep 1000").await?;
        pod.shim.kill(&id, "", signal, false).await?;
        if signal != 9 {
            // Without a handler PID 1 doesn't get it at all.
            pod.shim.kill(&id, "", 9, false).await?;
        }
        ensure!(pod.shim.wait(&id).await?.status == 137, "{name}");
        let again = pod.shim.kill(&id, "", 15, false).await.err();
        ensure!(again.is_some_and(|e| e.code() == Code::NotFound), "killed twice");
        pod.shim.delete(&id).await?;
    }
    let id = pod.run(pod.request("term", Bundle::workload(pod.scope, "term", &["trap"]))?).await?;
    integration_support::wait_for("the program to listen", || pod.log("term").is_ok_and(|l| !l.is_empty()))?;
    pod.shim.kill(&id, "", 2, false).await?;
    pod.shim.wait(&id).await?;
    pod.shim.delete(&id).await?;
    Ok(())
}

async fn waits_answer_after_the_end_and_all_of_them(pod: &Pod<'_>) -> Result<()> {
    let id = pod.sh("c", "exec sleep 1000").await?;
    let waits: Vec<_> = (0..20)
        .map(|_| {
            let (shim, id) = (pod.shim.clone(), id.clone());
            tokio::spawn(async move { shim.wait(&id).await })
        })
        .collect();
    tokio::task::yield_now().await;
    pod.shim.kill(&id, "", 9, false).await?;
    for wait in waits {
        ensure!(wait.await??.status == 137);
    }
    ensure!(pod.shim.wait(&id).await?.status == 137);
    Ok(())
}

async fn a_created_container_ends_by_sigterm(pod: &Pod<'_>) -> Result<()> {
    let expected = match pod.runtime.kind() {
        Kind::Corten => 143,
        Kind::Runc => 2,
        Kind::Crun => {
            integration_support::skip(
                "crun's init is PID 1 without handlers: the kernel keeps SIGTERM from it",
            );
            return Ok(());
        }
    };
    let request = pod.request("c", Bundle::sh(pod.scope, "c", "true"))?;
    let id = request.id.clone();
    pod.shim.create(request).await?;
    pod.shim.kill(&id, "", 15, false).await?;
    ensure!(pod.shim.wait(&id).await?.status == expected);
    pod.shim.delete(&id).await?;
    // The program has none of that: its PID 1 is as deaf as ever.
    let id = pod.sh("after", "kill -15 $$; exit 4").await?;
    ensure!(pod.shim.wait(&id).await?.status == 4);
    pod.shim.delete(&id).await?;
    Ok(())
}

async fn kill_and_delete_of_a_created_container(pod: &Pod<'_>) -> Result<()> {
    let one = pod.request("one", Bundle::sh(pod.scope, "one", "true"))?;
    let id = one.id.clone();
    pod.shim.create(one).await?;
    pod.shim.kill(&id, "", 9, false).await?;
    ensure!(pod.shim.wait(&id).await?.status == 137);
    let started = pod.shim.start(&id).await.err();
    ensure!(started.is_some_and(|e| e.code() == Code::FailedPrecondition));
    pod.shim.delete(&id).await?;
    let two = pod.request("two", Bundle::sh(pod.scope, "two", "true"))?;
    let id = two.id.clone();
    pod.shim.create(two).await?;
    pod.shim.delete(&id).await?;
    Ok(())
}

async fn wrong_order_is_refused(pod: &Pod<'_>) -> Result<()> {
    let id = pod.sh("c", "exec sleep 1000").await?;
    for (what, error) in [
        ("delete while it runs", pod.shim.delete(&id).await.err()),
        ("start twice", pod.shim.start(&id).await.err()),
        ("reopen no log", None),
    ] {
        ensure!(
            what == "reopen no log" || error.is_some_and(|e| e.code() == Code::FailedPrecondition),
            "{what}"
        );
    }
    pod.remove(&id).await
}

async fn unknown_ids_are_not_found(pod: &Pod<'_>) -> Result<()> {
    let shim = &pod.shim;
    let id = "nobody";
    let errors = [
        shim.start(id).await.err(),
        shim.kill(id, "", 9, false).await.err(),
        shim.wait(id).await.err(),
        shim.delete(id).await.err(),
        shim.state(id).await.err(),
        shim.stats(id).await.err(),
        shim.reopen_log(id).await.err(),
        shim.update(id, b"{}".to_vec()).await.err(),
        shim.exec_sync(id, b"{}".to_vec(), None, 0).await.err(),
    ];
    for (n, error) in errors.into_iter().enumerate() {
        ensure!(error.is_some_and(|e| e.code() == Code::NotFound), "call {n}");
    }
    Ok(())
}

async fn the_same_id_twice_is_refused(pod: &Pod<'_>) -> Result<()> {
    let request = pod.request("c", Bundle::sh(pod.scope, "c", "exec sleep 1000"))?;
    let id = pod.run(request.clone()).await?;
    let again = pod.shim.create(request).await.err();
    ensure!(again.is_some_and(|e| e.code() == Code::AlreadyExists));
    ensure!(pod.shim.state(&id).await?.0 == TaskStatus::Running, "the first one has suffered");
    pod.remove(&id).await
}

async fn a_failed_create_leaves_nothing_and_can_be_repeated(pod: &Pod<'_>) -> Result<()> {
    let bundle = Bundle::sh(pod.scope, "c", "exit 7").mount("bind", "/nonexistent", "/mnt", &["bind"]);
    let mut request = pod.request("c", bundle)?;
    request.rootfs = vec![corten_task::Mount {
        fs_type: "bind".into(),
        source: request.bundle.join("rootfs").to_string_lossy().into_owned(),
        options: vec!["rbind".into()],
        ..corten_task::Mount::default()
    }];
    let error = pod.shim.create(request.clone()).await.err();
    let Some(corten_task::Error::Call { source: status, .. }) = error else { anyhow::bail!("{error:?}") };
    ensure!(status.message.contains("/nonexistent"), "{status}");
    ensure!(pod.shim.list().await?.is_empty());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains(&*request.bundle.to_string_lossy()), "the root file system is still mounted");
    // Mended, the same id works.
    let config = request.bundle.join("config.json");
    let mended = std::fs::read_to_string(&config)?.replace("/nonexistent", "/etc");
    std::fs::write(config, mended)?;
    let id = pod.run(request).await?;
    ensure!(pod.shim.wait(&id).await?.status == 7);
    pod.shim.delete(&id).await?;
    Ok(())
}

async fn the_root_file_system_is_mounted(pod: &Pod<'_>) -> Result<()> {
    let bundle = Bundle::sh(pod.scope, "c", "echo changed > /etc/hostname; cat /lower-file; exit 4");
    let mut request = pod.request("c", bundle)?;
    // The bundle's own rootfs becomes a layer.
    let lower = pod.scope.path("lower");
    std::fs::rename(request.bundle.join("rootfs"), &lower)?;
    std::fs::write(lower.join("lower-file"), "from below\n")?;
    let (upper, work) = (pod.scope.make_dir("upper")?, pod.scope.make_dir("work")?);
    request.rootfs = vec![corten_task::Mount {
        fs_type: "overlay".into(),
        source: "overlay".into(),
        target: String::new(),
        options: vec![
            format!("lowerdir={}", lower.display()),
            format!("upperdir={}", upper.display()),
            format!("workdir={}", work.display()),
        ],
    }];
    let rootfs = request.bundle.join("rootfs");
    let id = pod.run(request).await?;
    ensure!(pod.shim.wait(&id).await?.status == 4);
    ensure!(std::fs::read_to_string(upper.join("etc/hostname"))? == "changed\n");
    pod.shim.delete(&id).await?;
    ensure!(std::fs::read_dir(rootfs)?.next().is_none(), "still mounted");
    ensure!(pod.log("c")?.iter().any(|(_, _, text)| text == "from below"));
    Ok(())
}

async fn a_container_that_is_oom_killed(pod: &Pod<'_>) -> Result<()> {
    let bundle = Bundle::workload(pod.scope, "c", &["allocate", "200000000"])
        .set("/linux/resources/memory", serde_json::json!({"limit": 50_000_000, "swap": 50_000_000}));
    let id = pod.run(pod.request("c", bundle)?).await?;
    let exit = pod.shim.wait(&id).await?;
    ensure!(exit.status == 137 && exit.oom_killed, "{exit:?}");
    pod.shim.delete(&id).await?;
    Ok(())
}

async fn what_a_container_without_pid_namespace_leaves_is_killed(pod: &Pod<'_>) -> Result<()> {
    let script = "sleep 1000 & echo $!; sleep 0.1";
    let bundle = Bundle::sh(pod.scope, "c", script).namespace("pid", None);
    let id = pod.run(pod.request("c", bundle)?).await?;
    pod.shim.wait(&id).await?;
    let log = pod.log("c")?;
    let pid: u32 = log[0].2.parse()?;
    integration_support::wait_for("the orphan to be killed", || !integration_shim::runs(pid))?;
    pod.shim.delete(&id).await?;
    Ok(())
}

async fn orphans_without_pid_namespace_are_reaped(pod: &Pod<'_>) -> Result<()> {
    // Its parent and grandparent have gone: it falls to the shim.
    let script = "(sh -c 'sh -c \"echo \\$\\$\" &' &); exec sleep 1000";
    let bundle = Bundle::sh(pod.scope, "c", script).namespace("pid", None);
    let id = pod.run(pod.request("c", bundle)?).await?;
    integration_support::wait_for("the orphan", || pod.log("c").is_ok_and(|log| !log.is_empty()))?;
    let pid: u32 = pod.log("c")?[0].2.parse()?;
    // A zombie has its directory still.
    let gone = || !std::path::Path::new(&format!("/proc/{pid}")).exists();
    integration_support::wait_for("the orphan to be reaped", gone)?;
    pod.remove(&id).await
}

async fn containers_of_a_pod_share_a_pid_namespace(pod: &Pod<'_>) -> Result<()> {
    let namespace = pod.shim.create_pid_namespace().await?;
    ensure!(pod.shim.create_pid_namespace().await? == namespace, "another one");
    let a = Bundle::sh(pod.scope, "a", "exec sleep 1000").namespace("pid", Some(&namespace.1));
    let a = pod.run(pod.request("a", a)?).await?;
    let b = Bundle::sh(pod.scope, "b", "ps -o pid,args").namespace("pid", Some(&namespace.1));
    let b = pod.run(pod.request("b", b)?).await?;
    ensure!(pod.shim.wait(&b).await?.status == 0);
    let seen = pod.log("b")?;
    ensure!(seen.iter().any(|(_, _, text)| text.contains("sleep 1000")), "{seen:?}");
    ensure!(seen.iter().any(|(_, _, text)| text.contains("pod-init")), "{seen:?}");
    pod.shim.delete(&b).await?;
    pod.remove(&a).await
}

async fn stats_pids_pause_and_update(pod: &Pod<'_>) -> Result<()> {
    let id = pod.sh("c", "while true; do :; done").await?;
    let client = pod.client().await?;
    let (_, before, ..) = figures(pod, &id).await?;
    let deadline = std::time::Instant::now() + integration_support::DEADLINE;
    while figures(pod, &id).await?.1 <= before {
        ensure!(std::time::Instant::now() < deadline, "no CPU time passes");
    }
    ensure!(pod.shim.pids(&id).await?.len() == 1);
    let pause = api::PauseRequest { id: id.clone() };
    client.call::<()>(TASK[0], "Pause", &pause, None).await?;
    ensure!(pod.shim.state(&id).await?.0 == TaskStatus::Paused);
    let (memory, _, pids, _) = figures(pod, &id).await?;
    ensure!(memory > 0 && pids >= 1, "{memory} {pids}");
    let exec = pod.exec(&id, "true", Some(Duration::from_millis(500))).await;
    ensure!(exec.map_or(true, |e| e.timed_out), "exec in a paused container");
    client.call::<()>(TASK[0], "Resume", &api::ResumeRequest { id: id.clone() }, None).await?;
    pod.shim.update(&id, br#"{"memory":{"limit":134217728,"swap":134217728}}"#.to_vec()).await?;
    ensure!(figures(pod, &id).await?.3 == 134_217_728);
    // The frozen are killed, too.
    client.call::<()>(TASK[0], "Pause", &pause, None).await?;
    pod.remove(&id).await
}

/// Memory, CPU time, processes, memory limit.
async fn figures(pod: &Pod<'_>, id: &str) -> Result<(u64, u64, u64, u64)> {
    Ok(match pod.shim.stats(id).await? {
        Stats::V1(m) => {
            let memory = m.memory.and_then(|m| m.usage).unwrap_or_default();
            let cpu = m.cpu.and_then(|c| c.usage).map_or(0, |u| u.total);
            (memory.usage, cpu, m.pids.map_or(0, |p| p.current), memory.limit)
        }
        Stats::V2(m) => {
            let memory = m.memory.unwrap_or_default();
            let cpu = m.cpu.map_or(0, |c| c.usage_usec);
            (memory.usage, cpu, m.pids.map_or(0, |p| p.current), memory.usage_limit)
        }
    })
}
