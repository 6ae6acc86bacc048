//! Seccomp notifications: the listener reaches the agent, with the container's state.

use std::{
    io::Read,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
};

use anyhow::{Context, Result, ensure};
use integration_support::{Bundle, DEADLINE, Kind};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use crate::{T, has};

crate::each_runtime!(
    the_listener_arrives_with_the_state,
    without_no_new_privileges_too,
    run_hands_it_over_too,
    exec_has_one_of_its_own,
    an_agent_that_is_not_there_is_an_error,
    every_flag_is_taken,
);

/// Listens where the container's config says.
struct Agent(UnixListener);

impl Agent {
    /// And gives the bundle a profile that asks it about mkdir.
    fn for_bundle(t: &T<'_>, bundle: Bundle) -> Result<(Self, Bundle)> {
        let path = t.scope.path("agent");
        let listener = UnixListener::bind(&path).context("listen")?;
        Ok((
            Self(listener),
            bundle.set("/linux/seccomp", profile(&path)).set("/annotations", json!({"a": "b"})),
        ))
    }

    /// What the runtime sends: the state, and the listener.
    fn receive(&self) -> Result<(Value, OwnedFd)> {
        readable(self.0.as_fd())?;
        let (mut stream, _) = self.0.accept()?;
        let mut buffer = vec![0; 1 << 16];
        let (n, mut fds) = corten_sys::fds::receive(stream.as_fd(), &mut buffer)?;
        let mut text = buffer.get(..n).unwrap_or_default().to_vec();
        // "It MUST be closed after sending": else this would have no end.
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.read_to_end(&mut text)?;
        ensure!(fds.len() == 1, "{} descriptors", fds.len());
        Ok((serde_json::from_slice(&text)?, fds.remove(0)))
    }
}

fn profile(path: &std::path::Path) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": path,
        "listenerMetadata": "for the agent",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    })
}

fn readable(fd: std::os::fd::BorrowedFd<'_>) -> Result<()> {
    let timeout = PollTimeout::try_from(DEADLINE)?;
    ensure!(poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout)? > 0, "nothing came");
    Ok(())
}

/// The descriptor is a listener, gets a notification, and when it is closed the call fails with ENOSYS.
fn answers(listener: OwnedFd) -> Result<()> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd()))?;
    ensure!(link.to_string_lossy() == "anon_inode:seccomp notify", "{link:?}");
    readable(listener.as_fd()).context("wait for a notification")?;
    drop(listener);
    Ok(())
}

fn attempt(t: &T<'_>, no_new_privileges: bool) -> Result<()> {
    let (agent, bundle) = Agent::for_bundle(t, t.workload(&["mkdir", "/tmp/x"]))?;
    let bundle = bundle.set("/process/noNewPrivileges", json!(no_new_privileges)).write()?;
    // create waits until the agent has taken it, so the agent is another thread.
    let (container, received) = std::thread::scope(|scope| {
        let received = scope.spawn(|| agent.receive());
        (t.rt.create(&bundle, &[]), received.join())
    });
    let container = container?;
    let (state, listener) = received.map_err(|_| anyhow::anyhow!("the agent panicked"))??;
    ensure!(state["fds"] == json!(["seccompFd"]) && state["metadata"] == "for the agent", "{state}");
    ensure!(state["pid"] == container.pid()?, "{state}");
    let inner = &state["state"];
    ensure!(inner["id"] == container.id() && inner["annotations"] == json!({"a": "b"}), "{state}");
    ensure!(inner["status"] == "creating" || t.rt.kind() != Kind::Corten, "{state}");
    ensure!(inner["bundle"] == bundle.dir().to_string_lossy().as_ref(), "{state}");
    container.start()?;
    answers(listener)?;
    container.wait_log("mkdir: ENOSYS")?;
    container.delete(&["--force"])
}

fn the_listener_arrives_with_the_state(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "crun 1.8's state has other fields") {
        return Ok(());
    }
    attempt(t, true)
}

fn without_no_new_privileges_too(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "crun 1.8's state has other fields") {
        return Ok(());
    }
    attempt(t, false)
}

fn run_hands_it_over_too(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "runc 1.1's own calls wait for answers") {
        return Ok(());
    }
    if t.differs(Kind::Crun, "crun 1.8's state has other fields") {
        return Ok(());
    }
    let (agent, bundle) = Agent::for_bundle(t, t.workload(&["mkdir", "/tmp/x"]))?;
    let bundle = bundle.write()?;
    std::thread::scope(|scope| {
        let agent = scope.spawn(|| answers(agent.receive()?.1));
        let finished = t.rt.run(&bundle)?;
        agent.join().map_err(|_| anyhow::anyhow!("the agent panicked"))??;
        has(&finished.stdout, "mkdir: ENOSYS")
    })
}

fn exec_has_one_of_its_own(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "runc 1.1's exec waits for answers to calls of its own") {
        return Ok(());
    }
    if t.differs(Kind::Crun, "crun 1.8's state has other fields") {
        return Ok(());
    }
    let (agent, bundle) = Agent::for_bundle(t, t.workload(&["sleep"]))?;
    let bundle = bundle.write()?;
    std::thread::scope(|scope| {
        let first = scope.spawn(|| agent.receive());
        let container = t.rt.start(&bundle)?;
        let (_, _first) = first.join().map_err(|_| anyhow::anyhow!("the agent panicked"))??;
        let second = scope.spawn(|| {
            let (state, listener) = agent.receive()?;
            answers(listener)?;
            Ok::<_, anyhow::Error>(state)
        });
        let finished = container.exec(&[], &["/bin/workload", "mkdir", "/tmp/y"])?;
        let state = second.join().map_err(|_| anyhow::anyhow!("the agent panicked"))??;
        has(&finished.stdout, "mkdir: ENOSYS")?;
        ensure!(state["pid"] != container.pid()? && state["state"]["pid"] == container.pid()?, "{state}");
        container.delete(&["--force"])
    })
}

/// By the kernel too, with and without somebody who listens.
fn every_flag_is_taken(t: &T<'_>) -> Result<()> {
    if t.too_new_for_peers("a flag that waits for an agent alone") {
        return Ok(());
    }
    let flags = json!([
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
    ]);
    let quiet = Bundle::workload(t.scope, "quiet", &["exit", "0"]).set("/linux/seccomp/flags", flags.clone());
    t.out(quiet)?;
    let (agent, bundle) = Agent::for_bundle(t, t.workload(&["mkdir", "/tmp/x"]))?;
    let bundle = bundle.set("/linux/seccomp/flags", flags).write()?;
    let (container, received) = std::thread::scope(|scope| {
        let received = scope.spawn(|| agent.receive());
        (t.rt.create(&bundle, &[]), received.join())
    });
    let container = container?;
    let (_, listener) = received.map_err(|_| anyhow::anyhow!("the agent panicked"))??;
    container.start()?;
    answers(listener)?;
    container.wait_log("mkdir: ENOSYS")?;
    container.delete(&["--force"])
}

fn an_agent_that_is_not_there_is_an_error(t: &T<'_>) -> Result<()> {
    let path = t.scope.path("nobody");
    let bundle = t.workload(&["exit", "0"]).set("/linux/seccomp", profile(&path));
    let said = t.refused(bundle)?;
    if t.rt.kind() == Kind::Corten {
        has(&said, &path.to_string_lossy())?;
    }
    Ok(())
}
