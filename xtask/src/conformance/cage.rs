//! Where outside suites run: in cgroups of their own, since what they call a relative path is relative to those, and
//! with what is left of them swept away at the end.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// crun's tests give it options that runc's command line hasn't: the first without a meaning for runc, the second the
/// name that config.json has anyway.
const CRUN_OPTIONS: &str = r#"left=$#
while [ $left -gt 0 ]; do
    word=$1; shift; left=$((left - 1))
    case $word in
    --cgroup-manager) shift; left=$((left - 1)); continue ;;
    --cgroup-manager=*) continue ;;
    --config) [ "$1" = config.json ] && { shift; left=$((left - 1)); continue; } ;;
    esac
    set -- "$@" "$word"
done
"#;

/// contest gives options after the id, which crun doesn't take.
const ID_LAST: &str = r#"left=$#; before=; id=
while [ $left -gt 0 ]; do
    word=$1; shift; left=$((left - 1))
    case $before-$word in create--*) ;; create-*) id=$word; before=; continue ;; esac
    before=$word; set -- "$@" "$word"
done
[ -z "$id" ] || set -- "$@" "$id"
"#;

/// A cgroup in each hierarchy, and a directory for scripts.
#[derive(Debug)]
pub(super) struct Cage {
    cgroups: Vec<PathBuf>,
    /// One that a test of crun's makes outside, unless there already was one of that name.
    stray: Option<PathBuf>,
    /// What was in /sys/fs/cgroup before. Where hierarchies are mounted one by one, it's a tmpfs, and runc's suite makes
    /// ordinary directories in it for those that aren't mounted.
    before: HashSet<PathBuf>,
    dir: PathBuf,
}

/// Where cgroup hierarchies are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

impl Cage {
    /// Makes them. `stray` says that the suite is one that makes a cgroup outside.
    pub(super) fn new(stray: bool) -> Result<Self> {
        let name = format!("corten-conformance-{}", std::process::id());
        let dir = std::env::temp_dir().join(&name);
        fs::create_dir_all(&dir).with_context(|| format!("can't make {}", dir.display()))?;
        let mut cgroups = Vec::new();
        let (for_strays, mut stray) = (stray, None);
        for hierarchy in hierarchies()? {
            if hierarchy.ends_with("freezer") {
                stray = Some(hierarchy.join("frozen")).filter(|path| for_strays && !path.exists());
            }
            let cgroup = hierarchy.join(&name);
            fs::create_dir_all(&cgroup).with_context(|| format!("can't make {}", cgroup.display()))?;
            // A new cpuset has no CPUs; on v2 and elsewhere there is no such file.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(inherited) = fs::read(hierarchy.join(file)) {
                    fs::write(cgroup.join(file), inherited).ok(); // because v2 has them for reading alone
                }
            }
            cgroups.push(cgroup);
        }
        Ok(Self { cgroups, stray, before: entries(Path::new(CGROUPS)).collect(), dir })
    }

    /// A program that runs `binary`, which suites know as `name`.
    ///
    /// crun refuses a hybrid cgroup layout that shows controllers on its v2 half, so they are hidden from it; and Debian's
    /// refuses versions of the specification that are younger than itself, so it's told an older one.
    pub(super) fn runtime(&self, name: &str, binary: &Path) -> Result<PathBuf> {
        let controllers = "/sys/fs/cgroup/unified/cgroup.controllers";
        if name != "crun" {
            return Ok(binary.to_owned());
        }
        let (script, empty) = (self.dir.join(name), self.dir.join("empty"));
        fs::write(&empty, "")?;
        let (hide, run) = (format!("mount --bind {} {controllers}", empty.display()), binary.display());
        let text = format!(
            r#"#!/bin/sh
for word; do
    [ ! -f "$word/config.json" ] ||
        sed -i 's/"ociVersion": *"1.[0-9.]*"/"ociVersion":"1.0.2"/' "$word/config.json"
done
{ID_LAST}grep -q . {controllers} || exec {run} "$@"
exec unshare -m --propagation unchanged sh -c '{hide} && exec {run} "$@"' crun "$@"
"#
        );
        fs::write(&script, text)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        Ok(script)
    }

    /// A link to `runtime` called crun, by which ours heeds all that crun does.
    pub(super) fn called_crun(&self, runtime: &Path) -> Result<PathBuf> {
        let dir = self.dir.join("called");
        fs::create_dir_all(&dir)?;
        let link = dir.join("crun");
        std::os::unix::fs::symlink(runtime, &link)
            .with_context(|| format!("can't make {}", link.display()))?;
        Ok(link)
    }

    /// A program that runs `runtime` as crun's tests call theirs.
    pub(super) fn as_crun(&self, runtime: &Path) -> Result<PathBuf> {
        let script = self.dir.join("as-crun");
        fs::write(&script, format!("#!/bin/sh\n{CRUN_OPTIONS}exec {} \"$@\"\n", runtime.display()))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        Ok(script)
    }

    /// A directory of Python modules for crun's tests, to come first in PYTHONPATH.
    pub(super) fn python(&self) -> Result<PathBuf> {
        let dir = self.dir.join("python");
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("libmount.py"), include_str!("libmount.py"))?;
        fs::write(dir.join("sitecustomize.py"), include_str!("sitecustomize.py"))?;
        Ok(dir)
    }

    /// Runs `program` inside for `deadline` at most, and yields what it has printed and whether it succeeded. What it
    /// leaves is killed.
    pub(super) fn run(&self, program: &mut Command, deadline: Duration) -> Result<(String, bool)> {
        let output = self.dir.join("output");
        let out = fs::File::create(&output)?;
        let enter: Vec<String> =
            self.cgroups.iter().map(|cgroup| format!("echo 0 > {}/cgroup.procs", cgroup.display())).collect();
        let mut command = Command::new("sh");
        // With mounts of its own: what a suite forgets to unmount goes with its last process, and is never in the host's way.
        let apart = "exec unshare --mount --propagation slave \"$0\" \"$@\"";
        command.arg("-c").arg(format!("{} && {apart}", enter.join(" && ")));
        command.arg(program.get_program()).args(program.get_args());
        let set = program.get_envs().filter_map(|(name, value)| Some((name, value?)));
        command.envs(set).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        if let Some(dir) = program.get_current_dir() {
            command.current_dir(dir);
        }
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().with_context(|| format!("can't start {program:?}"))?;
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if start.elapsed() > deadline {
                killpg(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGKILL).ok(); // it may have ended
                child.wait()?;
                break None;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        self.kill_all();
        let text = String::from_utf8_lossy(&fs::read(&output)?).into_owned();
        Ok((text, status.is_some_and(|status| status.success())))
    }

    /// Removes the cgroups with all that suites have left in them.
    pub(super) fn remove(self) -> Result<()> {
        self.kill_all();
        for cgroup in self.cgroups.iter().chain(&self.stray) {
            for dir in below(cgroup).iter().rev() {
                let start = Instant::now();
                while fs::remove_dir(dir).is_err() && dir.exists() && start.elapsed() < Duration::from_secs(5)
                {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
        let one_hierarchy = hierarchies()?.contains(&PathBuf::from(CGROUPS));
        let made = entries(Path::new(CGROUPS)).filter(|path| !one_hierarchy && !self.before.contains(path));
        // Only directories, and what is mounted stays.
        for made in made {
            for dir in below(&made).iter().rev() {
                fs::remove_dir(dir).with_context(|| format!("can't remove {}", dir.display()))?;
            }
        }
        fs::remove_dir_all(&self.dir).with_context(|| format!("can't remove {}", self.dir.display()))
    }

    fn kill_all(&self) {
        for cgroup in self.cgroups.iter().chain(&self.stray).flat_map(|cgroup| below(cgroup)) {
            fs::write(cgroup.join("freezer.state"), "THAWED").ok(); // because only one hierarchy has it
            for pid in fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default().lines() {
                if let Ok(pid) = pid.parse() {
                    kill(Pid::from_raw(pid), Signal::SIGKILL).ok(); // because it may have ended
                }
            }
        }
    }
}

/// The mount points of all hierarchies.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("can't read the mount table")?;
    let mounts = table.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("cgroup").then(|| left.split(' ').nth(4).map(PathBuf::from))?
    });
    Ok(mounts.filter(|path| path.starts_with(CGROUPS)).collect())
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// A directory and those below it, parents first.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(below(&entry.path()));
        }
    }
    found
}
