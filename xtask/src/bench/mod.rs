//! `cargo xtask bench`: corten beside runc and crun on a Kubernetes-like bundle, as ratios.
//!
//! Everything is measured side by side in one run, in rounds whose order turns round each time: machines drift, ratios of
//! medians and user+sys drift least. Never quote a single absolute time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use integration_support::{Bundle, Kind, Scope, wait_for};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use tempfile::TempDir;

mod floor;
mod idle;
mod shim;
mod targets;

use crate::{build, setup};
use floor::Floor;
pub(crate) use shim::bench as bench_shim;
use targets::Figure;

/// The operations, in the order in which they are measured and printed.
const OPERATIONS: [&str; 6] = ["run", "create", "start", "exec", "state", "delete"];

/// How often each operation is measured, for each runtime.
struct Effort {
    rounds: usize,
    runs: usize,
}

/// Builds, measures and prints. The options are how many rounds (4) of how many runs (10).
pub(crate) fn bench(options: &[&str]) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("bench creates containers: run it as root");
    }
    setup::install(&setup::BENCH)?;
    let bin = build::build()?;
    let number = |at: usize, default| match options.get(at) {
        Some(text) => text.parse().with_context(|| format!("not a number: {text:?}")),
        None => Ok(default),
    };
    let effort = Effort { rounds: number(0, 4)?, runs: number(1, 10)? };
    let scope = Scope::new("bench")?;
    hide_controllers(&scope)?;
    let files = files(&scope)?;
    let state = state_dir()?;
    let mut subjects = vec![Subject::new("corten", bin.join("corten"), &scope, (&files, state.path()))?];
    for kind in [Kind::Crun, Kind::Runc] {
        match kind.find() {
            Some(binary) => {
                subjects.push(Subject::new(kind.name(), binary, &scope, (&files, state.path()))?);
            }
            None => println!("{} isn't installed: left out", kind.name()),
        }
    }
    let first = subjects.first().context("nothing to measure")?;
    let floor = match Floor::new(&scope, &first.short, &files) {
        Ok(floor) => Some(floor),
        Err(error) => {
            println!("the floor program is left out: {error:#}");
            None
        }
    };
    let samples = measure(&subjects, floor.as_ref(), &effort)?;
    print(&subjects, &samples);
    let peak = memory(&subjects)?;
    verdicts(&samples);
    if let Some(peak) = peak {
        targets::peak(peak);
    }
    targets::size(std::fs::metadata(bin.join("corten"))?.len());
    drop(floor);
    state.close()?;
    scope.finish()?;
    idle::print().context("can't measure the memory of idle pods")
}

/// crun refuses a hybrid cgroup layout whose v2 half shows controllers, so all of them run where there are none to see.
fn hide_controllers(scope: &Scope) -> Result<()> {
    let controllers = "/sys/fs/cgroup/unified/cgroup.controllers";
    if !std::path::Path::new(controllers).exists() {
        return Ok(());
    }
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).context("can't make a mount namespace")?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).context("can't make mounts private")?;
    let empty = scope.path("no-controllers");
    std::fs::write(&empty, "")?;
    mount(Some(&empty), controllers, none, MsFlags::MS_BIND, none).context("can't hide the v2 controllers")
}

/// Where the runtimes keep what they know of their containers: on a tmpfs, as /run is. To make a file on ext4 shortly after others
/// were removed takes longer than all the rest that a runtime does for its state.
fn state_dir() -> Result<TempDir> {
    let dir = tempfile::tempdir_in("/dev/shm").context("make a directory for states in /dev/shm")?;
    let found = statfs(dir.path())?.filesystem_type();
    ensure!(found == TMPFS_MAGIC, "/dev/shm isn't a tmpfs, where states are to be, but {found:?}");
    Ok(dir)
}

/// The files that Kubernetes mounts into every container.
const FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// Makes them.
pub(crate) fn files(scope: &Scope) -> Result<PathBuf> {
    let dir = scope.make_dir("files")?;
    for name in FILES {
        std::fs::write(dir.join(name), "127.0.0.1 localhost\n")?;
    }
    Ok(dir)
}

/// A bundle as Kubernetes makes them, whose mount points are there already: the floor program makes none.
pub(crate) fn bundle(scope: &Scope, name: &str, args: &[&str], files: &Path) -> Result<Bundle> {
    let mut bundle = Bundle::busybox(scope, name, args);
    for file in FILES {
        let source = files.join(file);
        let source = source.to_str().context("a path that isn't UTF-8")?;
        bundle = bundle.mount("bind", source, &format!("/etc/{file}"), &["rbind", "rprivate", "rw"]);
    }
    let bundle = bundle.write()?;
    std::fs::create_dir_all(bundle.rootfs().join("etc"))?;
    for file in FILES {
        std::fs::write(bundle.rootfs().join("etc").join(file), "")?;
    }
    Ok(bundle)
}

/// A runtime to measure, with a bundle that exits at once and one that stays.
struct Subject {
    name: &'static str,
    binary: PathBuf,
    root: PathBuf,
    short: Bundle,
    long: Bundle,
}

impl Subject {
    fn new(
        name: &'static str,
        binary: PathBuf,
        scope: &Scope,
        (files, state): (&Path, &Path),
    ) -> Result<Self> {
        let short = bundle(scope, &format!("{name}-true"), &["/bin/true"], files)?;
        let long = bundle(scope, &format!("{name}-sleep"), &["/bin/sleep", "100000"], files)?;
        let root = state.join(name);
        std::fs::create_dir(&root)?;
        Ok(Self { name, binary, root, short, long })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(&self.root).args(args).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// `create` or `run` of a bundle, under its id.
    fn of_bundle(&self, verb: &str, bundle: &Bundle) -> Command {
        let mut command = self.command(&[verb, "--bundle"]);
        command.arg(bundle.dir()).arg(bundle.id());
        command
    }

    fn ok(&self, mut command: Command) -> Result<()> {
        let status = command.status().with_context(|| format!("can't start {}", self.binary.display()))?;
        if !status.success() {
            bail!("{}: {command:?}: {status}", self.name);
        }
        Ok(())
    }

    fn wait_stopped(&self) -> Result<()> {
        wait_for("the container to stop", || {
            let output = self.command(&["state", self.short.id()]).stdout(Stdio::piped()).output();
            output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("\"stopped\""))
        })
    }

    /// One measured call of an operation, with what must be before and after it unmeasured.
    fn sample(&self, operation: &str) -> Result<Sample> {
        let id = self.short.id();
        let clean = || self.command(&["delete", "--force", id]).status().map(drop);
        match operation {
            "run" => timed(self.of_bundle("run", &self.short)),
            "create" => {
                let sample = timed(self.of_bundle("create", &self.short));
                clean()?;
                sample
            }
            "start" => {
                self.ok(self.of_bundle("create", &self.short))?;
                let sample = timed(self.command(&["start", id]));
                self.wait_stopped()?;
                clean()?;
                sample
            }
            "delete" => {
                self.ok(self.of_bundle("create", &self.short))?;
                self.ok(self.command(&["start", id]))?;
                self.wait_stopped()?;
                timed(self.command(&["delete", id]))
            }
            "exec" => timed(self.command(&["exec", self.long.id(), "/bin/true"])),
            "state" => timed(self.command(&["state", self.long.id()])),
            other => bail!("unknown operation {other}"),
        }
    }
}

/// One measurement.
#[derive(Clone, Copy)]
struct Sample {
    wall: Duration,
    /// user+sys of the runtime and of what it waited for.
    cpu: Duration,
}

fn timed(mut command: Command) -> Result<Sample> {
    let cpu = children_cpu()?;
    let started = Instant::now();
    let status = command.status().with_context(|| format!("can't start {command:?}"))?;
    let wall = started.elapsed();
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(Sample { wall, cpu: children_cpu()?.saturating_sub(cpu) })
}

fn children_cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros =
        |t: nix::sys::time::TimeVal| u64::try_from(t.tv_sec() * 1_000_000 + t.tv_usec()).unwrap_or(0);
    Ok(Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time())))
}

/// The floor program's name in the table.
const FLOOR: &str = "floor";

type Samples = BTreeMap<(&'static str, &'static str), Vec<Sample>>;

fn measure(subjects: &[Subject], floor: Option<&Floor>, effort: &Effort) -> Result<Samples> {
    let mut samples = Samples::new();
    for round in 0..effort.rounds {
        for operation in OPERATIONS {
            let mut order: Vec<&Subject> = subjects.iter().collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for subject in order {
                match floor.filter(|_| (operation, subject.name) == ("run", "corten")) {
                    Some(floor) => in_turn(subject, floor, effort.runs, &mut samples),
                    None => {
                        let of_this = samples.entry((operation, subject.name)).or_default();
                        series(subject, operation, effort.runs, of_this)
                    }
                }
                .with_context(|| format!("{operation} with {}", subject.name))?;
            }
        }
        eprintln!("round {} of {} done", round + 1, effort.rounds);
    }
    Ok(samples)
}

/// `run` and the floor program, one after the other each time: the ratio is small, and the machine drifts by more within seconds.
fn in_turn(subject: &Subject, floor: &Floor, runs: usize, samples: &mut Samples) -> Result<()> {
    subject.sample("run")?; // the first ones warm the caches
    timed(floor.command())?;
    for _ in 0..runs {
        samples.entry(("run", subject.name)).or_default().push(subject.sample("run")?);
        samples.entry(("run", FLOOR)).or_default().push(timed(floor.command())?);
    }
    Ok(())
}

fn series(subject: &Subject, operation: &str, runs: usize, samples: &mut Vec<Sample>) -> Result<()> {
    let needs_running = matches!(operation, "exec" | "state");
    if needs_running {
        subject.ok(subject.of_bundle("create", &subject.long))?;
        subject.ok(subject.command(&["start", subject.long.id()]))?;
    }
    let result = (|| {
        subject.sample(operation)?; // the first one warms the caches
        for _ in 0..runs {
            samples.push(subject.sample(operation)?);
        }
        Ok(())
    })();
    if needs_running {
        subject.ok(subject.command(&["delete", "--force", subject.long.id()]))?;
    }
    result
}

fn print(subjects: &[Subject], samples: &Samples) {
    println!("| operation | runtime | n | median ms | min | p90 | user+sys ms | corten is |");
    println!("|---|---|---|---|---|---|---|---|");
    for operation in OPERATIONS {
        let own = samples.get(&(operation, "corten")).map(|own| Summary::of(own));
        for name in subjects.iter().map(|subject| subject.name).chain([FLOOR]) {
            let Some(of_this) = samples.get(&(operation, name)) else { continue };
            let s = Summary::of(of_this);
            let ratio = own.as_ref().filter(|_| name != "corten").map_or_else(String::new, |own| {
                format!("{:.2} × (CPU {:.2} ×)", own.median / s.median, own.cpu / s.cpu)
            });
            println!(
                "| {operation} | {name} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {ratio} |",
                of_this.len(),
                s.median,
                s.min,
                s.p90,
                s.cpu
            );
        }
    }
}

fn verdicts(samples: &Samples) {
    for operation in OPERATIONS {
        let figure = |name| {
            let of_this = samples.get(&(operation, name))?;
            let Summary { median, cpu, .. } = Summary::of(of_this);
            Some(Figure { median, cpu })
        };
        if let Some(corten) = figure("corten") {
            targets::operation(operation, &corten, figure("crun").as_ref(), figure(FLOOR).as_ref());
        }
    }
}

/// In milliseconds.
struct Summary {
    min: f64,
    median: f64,
    p90: f64,
    cpu: f64,
}

impl Summary {
    fn of(samples: &[Sample]) -> Self {
        let mut wall: Vec<f64> = samples.iter().map(|sample| sample.wall.as_secs_f64() * 1e3).collect();
        wall.sort_by(f64::total_cmp);
        let at = |share: f64| {
            wall.get(((wall.len().saturating_sub(1)) as f64 * share) as usize).copied().unwrap_or(0.0)
        };
        let cpu: f64 = samples.iter().map(|sample| sample.cpu.as_secs_f64() * 1e3).sum();
        Self { min: at(0.0), median: at(0.5), p90: at(0.9), cpu: cpu / samples.len().max(1) as f64 }
    }
}

/// Takes a file out of the page cache. One that has just been written lies there in pieces as large as what was written at a time, and
/// the kernel maps such a piece as a whole: a binary that has just been built has more resident than it will have on any
/// machine that has been started since.
fn evict(file: &Path) -> Result<()> {
    let file = std::fs::File::open(file).with_context(|| format!("can't open {}", file.display()))?;
    file.sync_all()?;
    Ok(posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
}

/// Peak resident memory of `run`; returns corten's in KiB. By time(1): a child of ours would count the memory we had before its exec.
fn memory(subjects: &[Subject]) -> Result<Option<f64>> {
    let time = PathBuf::from("/usr/bin/time");
    if !time.is_file() {
        println!("peak memory is not measured: needs /usr/bin/time (Debian: time)");
        return Ok(None);
    }
    let mut own = None;
    for subject in subjects {
        evict(&subject.binary)?;
        let mut command = Command::new(&time);
        command
            .args(["-f", "%M"])
            .arg(&subject.binary)
            .arg("--root")
            .arg(&subject.root)
            .args(["run", "--bundle"]);
        let output =
            command.arg(subject.short.dir()).arg(subject.short.id()).stdin(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        let peak = text.lines().last().unwrap_or("?");
        println!("peak memory of run, {}: {peak} KiB", subject.name);
        if subject.name == "corten" {
            own = peak.parse().ok();
        }
    }
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        let sample = |ms| Sample { wall: Duration::from_millis(ms), cpu: Duration::from_millis(2) };
        let summary = Summary::of(&[sample(9), sample(1), sample(5)]);
        assert!((summary.median - 5.0).abs() < 1e-9 && (summary.min - 1.0).abs() < 1e-9);
        assert!((summary.cpu - 2.0).abs() < 1e-9);
    }
}
