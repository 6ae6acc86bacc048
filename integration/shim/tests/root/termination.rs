//! Nothing that a container does keeps Kill, Delete and ExecSync from coming back, with a reason where there is one.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use corten_task::{CreateTask, Error};
use corten_task_api::proto::containerd::task::v3 as api;
use corten_task_api::services::TASK;
use corten_task_api::ttrpc::Code;
use integration_shim::footprint::{self, Footprint, status_kib};
use integration_shim::{Pod, process, runs};
use integration_support::{Bundle, DEADLINE, Disk, wait_for};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::json;

crate::each_runtime!(
    who_ignores_signals_is_killed,
    a_fork_bomb_is_killed,
    a_full_log_disk_stops_nobody,
    a_fifo_that_nobody_drains_stops_nobody,
    frozen_by_somebody_else,
);

/// For those that do much: shorter than what the test lane takes for a hung test.
const LONG: Duration = Duration::from_secs(270);

/// A timeout that comes when the exec has begun, surely.
const BEGINS: Duration = Duration::from_secs(5);

/// What only our runtime does, or what has nothing to do with it.
macro_rules! with_corten {
    ($($name:ident),+ $(,)?) => {
        mod alone {
            $(#[test]
            fn $name() -> anyhow::Result<()> {
                integration_shim::on_within(super::LONG, integration_support::Kind::Corten, stringify!($name), super::$name)
            })+
        }
    };
}

with_corten!(
    a_process_in_state_d_is_named,
    a_log_disk_that_hangs_stops_its_container_only,
    a_timeout_kills_daemons_too,
    thousands_of_execs_leave_nothing,
    of_two_deletes_one_counts,
    a_fork_bomb_without_pid_namespace_goes_with_its_init,
);

/// Kills by SIGKILL, waits and deletes; each within the deadline.
async fn end(pod: &Pod<'_>, id: &str) -> Result<()> {
    let killed = within("kill", pod.shim.kill(id, "", 9, false)).await?;
    killed.or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })?;
    within("wait", pod.shim.wait(id)).await??;
    within("delete", pod.shim.delete(id)).await??;
    Ok(())
}

async fn within<T>(what: &str, call: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(DEADLINE, call).await.with_context(|| format!("{what} hangs"))
}

async fn who_ignores_signals_is_killed(pod: &Pod<'_>) -> Result<()> {
    let id = pod.sh("c", "trap '' TERM INT HUP QUIT; echo ready; while :; do sleep 1000; done").await?;
    wait_for("it to be ready", || pod.log("c").is_ok_and(|log| !log.is_empty()))?;
    pod.shim.kill(&id, "", 15, false).await?;
    let out = pod.exec(&id, "trap '' TERM; sleep 1000", Some(Duration::from_millis(300))).await?;
    ensure!(out.timed_out && out.exit_code == 137, "{out:?}");
    end(pod, &id).await
}

async fn a_fork_bomb_is_killed(pod: &Pod<'_>) -> Result<()> {
    // Each forks as often as the limit lets it, and none ends by itself.
    let bomb = "f() { while :; do f & done; }; echo ready; f";
    let bundle = Bundle::sh(pod.scope, "c", bomb).set("/linux/resources/pids/limit", json!(64));
    let id = pod.run(pod.request("c", bundle)?).await?;
    wait_for("it to be ready", || pod.log("c").is_ok_and(|log| !log.is_empty()))?;
    end(pod, &id).await
}

async fn a_fork_bomb_without_pid_namespace_goes_with_its_init(pod: &Pod<'_>) -> Result<()> {
    // It forks, and each child forks and ends, for ever: whoever lists them has an old list.
    let bomb = "f() { f & }; f & f & f & echo ready; sleep 1; exit 7";
    let bundle =
        Bundle::sh(pod.scope, "c", bomb).set("/linux/resources/pids/limit", json!(64)).namespace("pid", None);
    let id = pod.run(pod.request("c", bundle)?).await?;
    let (_, pid) = pod.shim.state(&id).await?;
    let places = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let place = places.lines().find_map(|line| line.strip_prefix("0::/")).context("no version 2")?;
    let procs = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .map(|root| Path::new(root).join(place).join("cgroup.procs"));
    let procs = procs.iter().find(|procs| procs.exists()).context("no cgroup")?;
    ensure!(within("wait", pod.shim.wait(&id)).await??.status == 7);
    let left = fs::read_to_string(procs)?;
    ensure!(left.is_empty(), "left: {left:?}");
    within("delete", pod.shim.delete(&id)).await??;
    Ok(())
}

async fn a_full_log_disk_stops_nobody(pod: &Pod<'_>) -> Result<()> {
    let dir = pod.scope.make_dir("small")?;
    let disk = Mounted::new(Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]), &dir)?;
    let script = "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo done >&2; exit 3";
    let mut request = pod.request("c", Bundle::sh(pod.scope, "c", script))?;
    let log = dir.join("log");
    request.stdout = format!("cri://{}", log.display());
    request.stderr.clone_from(&request.stdout);
    let id = pod.run(request).await?;
    ensure!(within("wait", pod.shim.wait(&id)).await??.status == 3);
    ensure!(fs::metadata(&log)?.len() > 0);
    within("delete", pod.shim.delete(&id)).await??;
    drop(disk);
    Ok(())
}

async fn a_fifo_that_nobody_drains_stops_nobody(pod: &Pod<'_>) -> Result<()> {
    let fifo = pod.scope.path("fifo");
    mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let mut request = pod.request("c", Bundle::sh(pod.scope, "c", "exec cat /dev/zero"))?;
    request.stdout = fifo.display().to_string();
    request.stderr = String::new();
    let id = pod.run(request).await?;
    let (_, pid) = pod.shim.state(&id).await?;
    let blocked =
        || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains("(cat) S "));
    wait_for("it to block", blocked)?;
    end(pod, &id).await
}

async fn of_two_deletes_one_counts(pod: &Pod<'_>) -> Result<()> {
    // A client that doesn't read what a terminal shows: Delete waits for it for a while.
    let fifo = pod.scope.path("fifo");
    mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let mut request = pod.request("c", Bundle::sh(pod.scope, "c", "exec cat /dev/zero").terminal())?;
    request.stdout = fifo.display().to_string();
    request.stderr = String::new();
    request.terminal = true;
    let _reader = fs::File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&fifo)?;
    let id = pod.run(request).await?;
    let (_, pid) = pod.shim.state(&id).await?;
    let blocked =
        || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains("(cat) S "));
    wait_for("it to block", blocked)?;
    pod.shim.kill(&id, "", 9, false).await?;
    within("wait", pod.shim.wait(&id)).await??;
    let client = pod.client().await?;
    let request = api::DeleteRequest { id: id.clone(), exec_id: String::new() };
    let delete = || client.call::<api::DeleteResponse>(TASK[0], "Delete", &request, Some(DEADLINE));
    let again = async {
        let mut counted = 0;
        loop {
            match delete().await {
                Ok(_) => counted += 1,
                Err(e) if e.code == Code::NotFound => return Ok(counted),
                Err(e) => ensure!(e.message.contains("is being deleted"), "{e:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (first, again) = tokio::join!(delete(), again);
    ensure!(usize::from(first.is_ok()) + again? == 1, "deleted twice, or never: {first:?}");
    Ok(())
}

async fn frozen_by_somebody_else(pod: &Pod<'_>) -> Result<()> {
    let id = pod.sh("c", "exec sleep 1000").await?;
    let (_, pid) = pod.shim.state(&id).await?;
    let freezer = freezer(pid)?;
    fs::write(&freezer, if freezer.ends_with("cgroup.freeze") { "1" } else { "FROZEN" })?;
    // It can't be deleted, and it's said why; nothing hangs.
    let refused = within("delete", pod.shim.delete(&id)).await?.err().map(message).context("deleted")?;
    ensure!(refused.contains("running") && refused.contains("frozen"), "{refused}");
    end(pod, &id).await
}

/// The file that freezes the cgroup of this process.
fn freezer(pid: u32) -> Result<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = |controller: &str| {
        text.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            (fields.next()? == controller).then(|| fields.next())?
        })
    };
    match path("freezer") {
        Some(path) => Ok(Path::new("/sys/fs/cgroup/freezer").join(&path[1..]).join("freezer.state")),
        None => {
            let path = path("").context("no cgroup")?;
            Ok(Path::new("/sys/fs/cgroup").join(&path[1..]).join("cgroup.freeze"))
        }
    }
}

fn message(error: Error) -> String {
    match error {
        Error::Call { source, .. } => source.message,
        other => other.to_string(),
    }
}

/// A mount that goes with the test.
struct Mounted(PathBuf);

impl Mounted {
    fn new(mount: &mut Command, at: &Path) -> Result<Self> {
        integration_support::run(mount.arg(at))?.ok()?;
        Ok(Self(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH).ok(); // because the scope tells
    }
}

async fn a_process_in_state_d_is_named(pod: &Pod<'_>) -> Result<()> {
    let Some(disk) = Disk::new(pod.scope)? else { return Ok(()) };
    let bundle = Bundle::sh(pod.scope, "c", "while :; do echo x > /data/file; done").mount(
        "bind",
        &disk.dir().to_string_lossy(),
        "/data",
        &["bind"],
    );
    let id = pod.run(pod.request("c", bundle)?).await?;
    let (_, pid) = pod.shim.state(&id).await?;
    disk.freeze()?;
    let is_stuck = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") D "));
    wait_for("it to be in state D", is_stuck)?;
    within("kill", pod.shim.kill(&id, "", 9, false)).await??;
    let refused = within("delete", pod.shim.delete(&id)).await?.err().map(message).context("deleted")?;
    ensure!(refused.contains(&format!("process {pid} (sh) is in uninterruptible sleep")), "{refused}");
    let out =
        within("an exec", pod.shim.exec_sync(&id, process(&["/bin/true"]), Some(Duration::from_secs(1)), 0));
    drop(out.await?); // whatever comes of it
    // And it's over as soon as the disk answers.
    drop(disk);
    within("wait", pod.shim.wait(&id)).await??;
    within("delete", pod.shim.delete(&id)).await??;
    Ok(())
}

/// Seen to fail with the log written by the shim's only thread: "the shim can't tell the state: no answer".
async fn a_log_disk_that_hangs_stops_its_container_only(pod: &Pod<'_>) -> Result<()> {
    let Some(disk) = Disk::new(pod.scope)? else { return Ok(()) };
    let on_disk = |name: &str, script: &str| -> Result<CreateTask> {
        let mut request = pod.request(name, Bundle::sh(pod.scope, name, script))?;
        request.stdout = format!("cri://{}", disk.dir().join(name).display());
        request.stderr.clone_from(&request.stdout);
        Ok(request)
    };
    let id = pod.run(on_disk("c", "while :; do echo a line; done")?).await?;
    let log = disk.dir().join("c");
    wait_for("it to log", || fs::metadata(&log).is_ok_and(|log| log.len() > 0))?;
    // As for a rotation: to reopen it is to make a file.
    let rotated = disk.dir().join("c.1");
    fs::rename(&log, &rotated)?;
    disk.freeze()?;
    let (_, pid) = pod.shim.state(&id).await?;
    let state = |path: String, state: &str| fs::read_to_string(path).is_ok_and(|stat| stat.contains(state));
    let blocked = async {
        // Only if it stays so: while the disk answers it sleeps now and then, too.
        while !(stuck_threads(pod.shim_pid)? == 1 && state(format!("/proc/{pid}/stat"), ") S ")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    within("the container's output", blocked).await??;
    // All calls are answered, for the container and for others.
    within("state", pod.shim.state(&id)).await??;
    within("list", pod.shim.list()).await??;
    let out = within("exec", pod.exec(&id, "echo yes", Some(DEADLINE))).await??;
    ensure!(out.stdout == b"yes\n", "{out:?}");
    // A container whose log is to be there is made when the disk answers. Seen to fail where Create gave up when reopening did.
    let meanwhile = async {
        while stuck_threads(pod.shim_pid)? < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let refused = within("reopen", pod.shim.reopen_log(&id)).await?.err().map(message);
        let refused = refused.context("reopened")?;
        ensure!(refused.contains("its file system hasn't answered for 5 s"), "{refused}");
        let other = within("another container", pod.sh("other", "exec sleep 1000")).await??;
        end(pod, &other).await?;
        end(pod, &id).await?;
        disk.thaw()
    };
    let new = on_disk("new", "exec sleep 1000")?;
    let new_id = new.id.clone();
    let (created, meanwhile) = tokio::join!(pod.shim.create(new), meanwhile);
    meanwhile?;
    created?;
    pod.shim.start(&new_id).await?;
    // And all that was taken is written.
    wait_for("the log to be written", || stuck_threads(pod.shim_pid).is_ok_and(|stuck| stuck == 0))?;
    end(pod, &new_id).await?;
    ensure!(pod.shim.list().await?.is_empty());
    wait_for("the threads to go", || Footprint::of(pod.shim_pid).is_ok_and(|now| now.threads == 1))?;
    ensure!(integration_shim::parse_log(&rotated)?.iter().all(|(.., text)| text == "a line"));
    Ok(())
}

/// How many of a process's threads are in state D.
fn stuck_threads(pid: u32) -> Result<usize> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))?.flatten();
    let stat = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
    Ok(threads.map(stat).filter(|stat| stat.contains(") D ")).count())
}

async fn a_timeout_kills_daemons_too(pod: &Pod<'_>) -> Result<()> {
    if !["/sys/fs/cgroup/unified", "/sys/fs/cgroup/cgroup.controllers"]
        .iter()
        .any(|path| Path::new(path).exists())
    {
        integration_support::skip("no version 2 cgroup hierarchy here, not even an empty one");
        return Ok(());
    }
    let id = pod.sh("c", "exec sleep 1000").await?;
    let (_, init) = pod.shim.state(&id).await?;
    // A daemon of the book: two forks, a session of its own, its parent gone before we look.
    let daemon = "setsid sh -c '(sleep 4242 <&- >&- 2>&- &) ; exit 0' & wait; echo left; exec sleep 1000";
    let out = pod.exec(&id, daemon, Some(BEGINS)).await?;
    ensure!(out.timed_out && out.stdout == b"left\n", "{out:?}");
    ensure!(pod.shim.pids(&id).await? == [init], "left: {:?}", pod.shim.pids(&id).await?);
    ensure!(runs(init));
    // One that ends in time may leave what it likes.
    pod.exec(&id, "setsid sleep 4242 <&- >&- 2>&- & exit 0", Some(DEADLINE)).await?;
    ensure!(pod.shim.pids(&id).await?.len() == 2);
    end(pod, &id).await
}

async fn thousands_of_execs_leave_nothing(pod: &Pod<'_>) -> Result<()> {
    /// What an allocator may keep, in KiB, however many there are.
    const MARGIN: u64 = 4096;
    let many = std::env::var("CORTEN_TEST_EXECS").map_or(Ok(500), |many| many.parse::<usize>())?;
    let id = pod.sh("c", "exec sleep 1000").await?;
    let (bundle, state) = (pod.bundle(&id), pod.runtime.root().join(&id));
    let left = || footprint::files(&[&bundle, &pod.dir, &state]);
    for _ in 0..50 {
        pod.shim.exec_sync(&id, process(&["/bin/true"]), Some(DEADLINE), 0).await?;
    }
    // The thread that has opened the log stays for a moment.
    wait_for("the threads to go", || Footprint::of(pod.shim_pid).is_ok_and(|now| now.threads == 1))?;
    let (files, before) = (left(), Footprint::of(pod.shim_pid)?);
    let resident = status_kib(pod.shim_pid, "VmRSS")?;
    for n in 0..many {
        let out = pod.shim.exec_sync(&id, process(&["/bin/true"]), Some(DEADLINE), 0).await?;
        ensure!(out.exit_code == 0, "exec {n}: {out:?}");
    }
    let after = Footprint::of(pod.shim_pid)?;
    ensure!(after == before, "{before:?} became {after:?}");
    let now = status_kib(pod.shim_pid, "VmRSS")?;
    ensure!(now <= resident + MARGIN, "{resident} KiB became {now}");
    ensure!(left() == files, "{files:?} became {:?}", left());
    end(pod, &id).await
}
