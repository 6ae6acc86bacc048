//! One guest: boots, is watched, ends or is ended.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::guest::Guest;
use super::image::Image;

/// How long until the job begins: some seconds on an idle machine, minutes on one with twenty others to serve.
const BOOT: Duration = Duration::from_secs(600);

const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=reliable no_timer_check \
                                norandmaps random.trust_cpu=on audit=0 systemd.unit=vm-job.service";

/// A guest's temporary files; gone with it.
struct Files(PathBuf);

impl Drop for Files {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok(); // because it is below target, where nothing breaks by it
    }
}

/// What a guest said.
#[derive(Debug)]
pub(super) struct Said {
    /// The job's standard output.
    pub(super) out: String,
    /// The job's standard error.
    pub(super) err: String,
    /// Why the guest didn't come to the job's end, with the end of its console. `None`: it did.
    pub(super) failure: Option<String>,
}

/// Boots a guest with a disk of tests; waits until it is done, or `limit` has passed.
pub(super) fn run(image: &Image, guest: Guest, job: &Path, limit: Duration, dir: &Path) -> Result<Said> {
    let files = Files(dir.join(format!("run-{}-{}", std::process::id(), guest.name())));
    fs::create_dir(&files.0).with_context(|| format!("can't make {}", files.0.display()))?;
    let at = |name: &str| files.0.join(name);
    image.write_initrd(&at("initrd"), guest)?;
    let mut child = qemu(image, guest, job, &files.0)?.spawn().context("can't start qemu-system-x86_64")?;
    let ended = watch(&mut child, &at("out"), limit)?;
    let code = read(&at("code"));
    let failure = match (&*code, ended) {
        ("", Ended::TooLate(what)) => Some(what),
        ("", Ended::Itself(how)) => Some(format!("ended before its job did ({how})")),
        ("0\n", _) => None,
        (code, _) => Some(format!("its script ended with {}", code.trim())),
    };
    let failure = failure.map(|why| {
        let console = read(&at("console"));
        let said = read(&at("qemu"));
        format!("the {} guest {why}\n{said}console:\n{}", guest.name(), tail(&console, 40))
    });
    Ok(Said { out: read(&at("out")), err: read(&at("err")), failure })
}

fn qemu(image: &Image, guest: Guest, job: &Path, dir: &Path) -> Result<Command> {
    let file = |name: &str| dir.join(name).display().to_string();
    // setpriv: the guest goes when we go, however we do.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
    command.args([
        "-accel",
        "tcg,thread=multi,tb-size=512",
        "-M",
        "pc",
        "-cpu",
        "qemu64",
        "-smp",
        "1",
        "-m",
        "1536",
    ]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    let arguments = format!("{KERNEL_ARGUMENTS} {}", guest.kernel_arguments());
    command.arg("-kernel").arg(&image.kernel).args(["-initrd", &file("initrd"), "-append", &arguments]);
    for disk in [&image.disk, job] {
        // Writes go to an unnamed file.
        let disk = disk.display();
        command.args(["-drive", &format!("file={disk},format=raw,if=virtio,snapshot=on,cache=unsafe")]);
    }
    command.args(["-serial", &format!("file:{}", file("console")), "-device", "virtio-serial-pci"]);
    for port in ["out", "err", "code"] {
        command.args(["-chardev", &format!("file,id={port},path={}", file(port))]);
        command.args(["-device", &format!("virtserialport,chardev={port},name=vm.{port}")]);
    }
    let log = File::create(dir.join("qemu")).context("can't make a log file")?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(command)
}

enum Ended {
    Itself(String),
    TooLate(String),
}

fn watch(child: &mut Child, out: &Path, limit: Duration) -> Result<Ended> {
    let started = Instant::now();
    let mut up = false;
    loop {
        if let Some(status) = child.try_wait()? {
            let how = match status.signal() {
                Some(signal) => format!("qemu was killed by signal {signal}"),
                None => format!("qemu: {status}"),
            };
            return Ok(Ended::Itself(how));
        }
        up = up || out.metadata().is_ok_and(|out| out.len() > 0); // its first line is that it is up
        let late = match started.elapsed() {
            elapsed if !up && elapsed > BOOT => Some(format!("didn't boot within {} s", BOOT.as_secs())),
            elapsed if elapsed > limit => Some(format!("wasn't done after {} s", limit.as_secs())),
            _ => None,
        };
        if let Some(why) = late {
            child.kill()?;
            child.wait()?;
            return Ok(Ended::TooLate(why));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn read(path: &Path) -> String {
    // A file that isn't there: the guest hasn't come so far.
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// The last `count` lines.
pub(super) fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
}
