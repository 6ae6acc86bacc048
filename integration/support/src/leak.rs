//! Finding, and in an emergency removing, what a scope left on the machine.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::scope::Scope;

/// Everything of this scope that is still on the machine, one sentence each: mounts (so pinned namespaces too),
/// cgroups in any hierarchy, processes, network links, firewall rules, containers that runtimes keep where they do when
/// nobody says otherwise, entries in directories that must be empty.
#[must_use]
pub fn leaks(scope: &Scope) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(mounts(scope).into_iter().map(|m| format!("mount {}", m.display())));
    found.extend(cgroups(scope).into_iter().map(|c| format!("cgroup {}", c.display())));
    found.extend(processes(scope).into_iter().map(|(pid, what)| format!("process {pid}: {what}")));
    found.extend(links(scope).into_iter().map(|l| format!("network link {l}")));
    found.extend(rules(scope).into_iter().map(|r| format!("firewall rule {r}")));
    found.extend(kept(scope).into_iter().map(|k| format!("state {}", k.display())));
    for dir in scope.expected_empty() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        found.extend(entries.flatten().map(|e| format!("state {}", e.path().display())));
    }
    found
}

/// Takes away what [`leaks`] found, for the sake of the tests that follow.
pub(crate) fn destroy(scope: &Scope) {
    for (pid, _) in processes(scope) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).ok(); // because it may have ended by itself
    }
    crate::wait_for("killed processes to be gone", || processes(scope).is_empty()).ok();
    for mount in mounts(scope).iter().rev() {
        umount2(mount, MntFlags::MNT_DETACH).ok(); // because a mount below may have taken it along
    }
    for link in links(scope) {
        Command::new("ip").args(["link", "del", &link]).output().ok();
    }
    for state in kept(scope) {
        fs::remove_dir_all(state).ok(); // because the test has failed already, and says why
    }
    let mut cgroups = cgroups(scope);
    cgroups.sort_by_key(|c| std::cmp::Reverse(c.components().count()));
    for cgroup in cgroups {
        crate::wait_until("a cgroup to be empty", std::time::Duration::from_secs(2), || {
            Ok((fs::remove_dir(&cgroup).is_ok() || !cgroup.exists()).then_some(()))
        })
        .ok(); // because the test has failed already, and says why
    }
}

/// The scope's own parent cgroup isn't a leak: runtimes make parents and never remove them.
pub(crate) fn remove_cgroup_parent(scope: &Scope) {
    for root in hierarchies() {
        fs::remove_dir(root.join(scope.cgroup_parent().trim_start_matches('/'))).ok(); // because it may not exist
    }
}

fn mounts(scope: &Scope) -> Vec<PathBuf> {
    let dir = scope.dir().to_string_lossy().into_owned();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|target| target.starts_with(&dir) || target.contains(scope.prefix()))
        .map(PathBuf::from)
        .collect()
}

/// The roots of all mounted cgroup hierarchies, v1 and v2.
pub(crate) fn hierarchies() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            right.starts_with("cgroup").then(|| left.split(' ').nth(4).map(PathBuf::from))?
        })
        .filter(|path| path.starts_with("/sys/fs/cgroup"))
        .collect()
}

fn cgroups(scope: &Scope) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for root in hierarchies() {
        let parent = root.join(scope.cgroup_parent().trim_start_matches('/'));
        collect_dirs(&parent, &mut found);
    }
    found
}

fn collect_dirs(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        collect_dirs(&entry.path(), found);
        found.push(entry.path());
    }
}

fn processes(scope: &Scope) -> Vec<(i32, String)> {
    let me = std::process::id();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| u32::try_from(*pid) != Ok(me))
        .filter_map(|pid| Some((pid, ours(scope, pid)?)))
        .collect()
}

/// What a process is, if it belongs to the scope: by its command line, its cgroup, or its working or root directory.
fn ours(scope: &Scope, pid: i32) -> Option<String> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let command = fs::read(proc.join("cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    let cgroup = fs::read_to_string(proc.join("cgroup")).unwrap_or_default();
    let link = |name: &str| fs::read_link(proc.join(name)).is_ok_and(|p| contains(&p, scope.prefix()));
    let hit = command.contains(scope.prefix())
        || cgroup.contains(&format!("{}/", scope.cgroup_parent()))
        || link("cwd")
        || link("root")
        || link("exe");
    if !hit {
        return None;
    }
    // A zombie that its parent has yet to reap has no more command line, but it is in the way of nobody's test.
    let status = fs::read_to_string(proc.join("status")).unwrap_or_default();
    let state = status.lines().find_map(|l| l.strip_prefix("State:")).unwrap_or("gone").trim().to_owned();
    (!state.starts_with("gone")).then(|| format!("{command} ({state})"))
}

fn contains(path: &Path, needle: &str) -> bool {
    path.as_os_str().as_bytes().windows(needle.len()).any(|w| w == needle.as_bytes())
}

/// What is under the default roots of corten and its peers.
fn kept(scope: &Scope) -> Vec<PathBuf> {
    let roots = ["/run/corten/oci", "/run/runc", "/run/crun"];
    let entries = roots.iter().filter_map(|root| fs::read_dir(root).ok()).flat_map(Iterator::flatten);
    entries.map(|entry| entry.path()).filter(|path| contains(path, scope.prefix())).collect()
}

fn links(scope: &Scope) -> Vec<String> {
    let suffix = scope.link("");
    let Ok(entries) = fs::read_dir("/sys/class/net") else { return Vec::new() };
    let mut found = Vec::new();
    for name in entries.flatten().filter_map(|e| e.file_name().into_string().ok()) {
        let master = fs::read_link(format!("/sys/class/net/{name}/master")).unwrap_or_default();
        if name.ends_with(&suffix) || contains(&master, &suffix) {
            found.push(name);
        }
    }
    found
}

fn rules(scope: &Scope) -> Vec<String> {
    let Some(iptables) = crate::need::find_program("iptables-save") else { return Vec::new() };
    let Ok(output) = Command::new(iptables).output() else { return Vec::new() };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter(|l| l.contains(scope.prefix())).map(str::to_owned).collect()
}
