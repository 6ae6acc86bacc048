//! events: what a container uses, and that it has run out of memory.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, ensure};
use integration_support::{Container, Kind, wait_for, wait_until};
use serde_json::{Value, json};

use crate::{T, has};

crate::each_runtime!(
    stats_now,
    stats_from_time_to_time,
    lack_of_memory_is_told,
    a_stopped_container_has_none
);
crate::each_runtime!(@one corten_alone Corten pressure_is_told a_reader_may_leave intervals_are_checked);

fn crun(t: &T<'_>) -> bool {
    t.differs(Kind::Crun, "crun has no events")
}

/// `events` that goes on in the background, and the file with what it says.
struct Watcher {
    child: Child,
    out: PathBuf,
}

impl Watcher {
    fn start(t: &T<'_>, container: &Container<'_>, options: &[&str]) -> Result<Self> {
        let out = t.scope.path("events");
        let mut command = t.rt.command();
        command.arg("events").args(options).arg(container.id()).stdin(Stdio::null());
        Ok(Self { child: command.stdout(File::create(&out)?).spawn()?, out })
    }

    /// The events of one kind that are complete lines by now.
    fn all(&self, kind: &str) -> Result<Vec<Value>> {
        let text = fs::read_to_string(&self.out)?;
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let events: Vec<Value> = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
        Ok(events.into_iter().filter(|event| event["type"] == kind).collect())
    }

    fn ends(mut self) -> Result<()> {
        wait_for("events to end with the container", || self.child.try_wait().is_ok_and(|s| s.is_some()))
    }
}

fn stats_now(t: &T<'_>) -> Result<()> {
    if crun(t) {
        return Ok(());
    }
    let container = t.start(t.workload(&["allocate", "20000000"]))?;
    container.wait_log("allocated")?;
    let said = container.call(&["events", "--stats"])?.ok()?.stdout;
    let event: Value = serde_json::from_str(&said).context("one line of JSON")?;
    ensure!(event["type"] == "stats" && event["id"] == container.id(), "{event}");
    let data = &event["data"];
    ensure!(data["memory"]["usage"]["usage"].as_u64() >= Some(20_000_000), "{data}");
    ensure!(data["memory"]["usage"]["limit"].as_u64() == Some(268_435_456), "{data}");
    ensure!(data["pids"]["current"].as_u64() >= Some(1) && data["pids"]["limit"] == 1024, "{data}");
    ensure!(data["cpu"]["usage"]["total"].as_u64() > Some(0), "{data}");
    ensure!(data["hugetlb"].is_object() && data["blkio"].is_object(), "{data}");
    container.delete(&["--force"])
}

fn stats_from_time_to_time(t: &T<'_>) -> Result<()> {
    if crun(t) {
        return Ok(());
    }
    let container = t.start(t.workload(&["sleep"]))?;
    let watcher = Watcher::start(t, &container, &["--interval", "20ms"])?;
    wait_for("three lines of usage", || watcher.all("stats").is_ok_and(|all| all.len() >= 3))?;
    container.delete(&["--force"])?;
    watcher.ends()
}

fn lack_of_memory_is_told(t: &T<'_>) -> Result<()> {
    if crun(t) {
        return Ok(());
    }
    let limits = json!({"limit": 33_554_432, "swap": 33_554_432});
    let bundle = t.workload(&["sleep"]).set("/linux/resources/memory", limits);
    // Nobody but the greedy one is to be killed.
    let container = t.start(bundle.set("/process/oomScoreAdj", json!(0)))?;
    let watcher = Watcher::start(t, &container, &["--interval", "1h"])?;
    // Whether it's watching yet can't be seen from outside: tried until it was.
    wait_until("an oom event", integration_support::DEADLINE * 2, || {
        let process = json!({"cwd": "/", "user": {"uid": 0, "gid": 0}, "oomScoreAdj": 1000,
            "args": ["/bin/workload", "allocate", "100000000"]});
        let path = t.scope.path("greedy.json");
        fs::write(&path, process.to_string())?;
        let greedy = container.exec(&["--process", &path.to_string_lossy()], &[])?;
        ensure!(!greedy.status.success(), "it got more memory than there is: {greedy:?}");
        Ok((!watcher.all("oom")?.is_empty()).then_some(()))
    })?;
    ensure!(watcher.all("oom")?[0]["id"] == container.id());
    ensure!(container.status()? == "running");
    container.delete(&["--force"])?;
    watcher.ends()
}

fn a_stopped_container_has_none(t: &T<'_>) -> Result<()> {
    if crun(t) {
        return Ok(());
    }
    let container = t.start(t.workload(&["exit", "0"]))?;
    container.wait_status("stopped")?;
    has(&container.call(&["events", "--stats"])?.err()?.stderr, "not running")?;
    container.delete(&[])
}

fn pressure_is_told(t: &T<'_>) -> Result<()> {
    let v2 = ["/sys/fs/cgroup/cgroup.controllers", "/sys/fs/cgroup/unified/cgroup.controllers"];
    if !fs::exists("/proc/pressure/cpu")? || !v2.iter().any(|file| Path::new(file).exists()) {
        integration_support::skip("this kernel doesn't measure pressure, or has no cgroup v2 to tell it");
        return Ok(());
    }
    // Two of them want the same processor, and all of it.
    let script = "while :; do :; done & while :; do :; done";
    let cpu = json!({"cpus": "0"});
    let container = t.start(t.sh(script).set("/linux/resources/cpu", cpu))?;
    let watcher = Watcher::start(t, &container, &["--pressure", "--interval", "1h"])?;
    wait_for("CPU pressure", || {
        watcher.all("pressure").is_ok_and(|all| all.iter().any(|event| event["data"]["resource"] == "cpu"))
    })?;
    container.delete(&["--force"])?;
    watcher.ends()
}

fn a_reader_may_leave(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["sleep"]))?;
    let mut command = t.rt.command();
    command.args(["events", "--interval", "10ms", container.id()]).stdin(Stdio::null());
    let errors = t.scope.path("errors");
    let mut child = command.stdout(Stdio::piped()).stderr(File::create(&errors)?).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut line)?;
    has(&line, "\"stats\"")?;
    wait_for("events to end without a reader", || child.try_wait().is_ok_and(|s| s.is_some()))?;
    let said = fs::read_to_string(&errors)?;
    ensure!(child.wait()?.success() && said.is_empty(), "{said}");
    container.delete(&["--force"])
}

fn intervals_are_checked(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["sleep"]))?;
    for (interval, said) in
        [("0s", "must be greater than 0"), ("5", "must be a duration"), ("x", "--interval")]
    {
        has(&container.call(&["events", "--interval", interval])?.err()?.stderr, said)?;
    }
    container.delete(&["--force"])
}
