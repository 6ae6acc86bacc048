//! All that can be said about a config.json without looking at the host: what runtime-spec demands of values.
//!
//! Types have been checked when the JSON was parsed. What a runtime doesn't support is for that runtime to say.

use std::collections::HashSet;

use oci_spec::runtime::{Hook, Hooks, Linux, LinuxIdMapping, LinuxNamespaceType, Mount, Process, Spec};

use crate::Problem;

/// Lists everything that is wrong with the config; a config that passes has a version that we can read, a root
/// and a process with arguments.
#[must_use]
pub fn validate(spec: &Spec) -> Vec<Problem> {
    let mut problems = Problems(Vec::new());
    version(spec.version(), &mut problems);
    match spec.root() {
        None => problems.add("root", "is missing"),
        Some(root) if root.path().as_os_str().is_empty() => problems.add("root.path", "is empty"),
        Some(_) => {}
    }
    match spec.process() {
        None => problems.add("process", "is missing"),
        Some(process) => self::process(process, &mut problems),
    }
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        self::mount(mount, index, &mut problems);
    }
    if let Some(hooks) = spec.hooks() {
        self::hooks(hooks, &mut problems);
    }
    names(spec, &mut problems);
    if let Some(linux) = spec.linux() {
        self::linux(linux, &mut problems);
    }
    if spec.annotations().iter().flatten().any(|(key, _)| key.is_empty()) {
        problems.add("annotations", "has an empty key");
    }
    problems.0
}

struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, field: impl Into<String>, what: impl Into<String>) {
        self.0.push(Problem { field: field.into(), what: what.into() });
    }
}

/// Any 1.x: a newer minor version only adds fields.
fn version(version: &str, problems: &mut Problems) {
    if version.is_empty() {
        return problems.add("ociVersion", "is missing");
    }
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<Option<u32>> = core.split('.').map(|number| number.parse().ok()).collect();
    match numbers.as_slice() {
        [Some(1), Some(_), Some(_)] => {}
        [Some(_), Some(_), Some(_)] => {
            problems.add("ociVersion", format!("{version} is not supported, only 1.x.y"))
        }
        _ => problems.add("ociVersion", format!("{version:?} is not a version like 1.3.0")),
    }
}

fn process(process: &Process, problems: &mut Problems) {
    if !process.cwd().is_absolute() {
        problems.add("process.cwd", format!("{:?} is not absolute", process.cwd()));
    }
    match process.args().as_deref() {
        None | Some([]) => problems.add("process.args", "is empty"),
        Some([program, ..]) if program.is_empty() => problems.add("process.args[0]", "is empty"),
        Some(args) => no_nul("process.args", args, problems),
    }
    let env = process.env().as_deref().unwrap_or_default();
    no_nul("process.env", env, problems);
    let mut seen = HashSet::new();
    for (index, rlimit) in process.rlimits().iter().flatten().enumerate() {
        let field = || format!("process.rlimits[{index}]");
        if !seen.insert(rlimit.typ().to_string()) {
            problems.add(field(), format!("duplicate of {}", rlimit.typ()));
        }
        if rlimit.soft() > rlimit.hard() {
            problems.add(
                field(),
                format!("soft limit {} is above the hard limit {}", rlimit.soft(), rlimit.hard()),
            );
        }
    }
    if let Some(score) = process.oom_score_adj().filter(|score| !(-1000..=1000).contains(score)) {
        problems.add("process.oomScoreAdj", format!("{score} is out of range (-1000 to 1000)"));
    }
}

/// Such a string can't be handed to the kernel.
fn no_nul(field: &str, strings: &[String], problems: &mut Problems) {
    for (index, _) in strings.iter().enumerate().filter(|(_, string)| string.contains('\0')) {
        problems.add(format!("{field}[{index}]"), "contains a NUL character");
    }
}

fn mount(mount: &Mount, index: usize, problems: &mut Problems) {
    if mount.destination().as_os_str().is_empty() {
        problems.add(format!("mounts[{index}].destination"), "is empty");
    }
    let (uids, gids) = (mount.uid_mappings().is_some(), mount.gid_mappings().is_some());
    if uids != gids {
        problems.add(format!("mounts[{index}]"), "uidMappings and gidMappings must be given together");
    }
}

#[allow(deprecated, reason = "prestart hooks are deprecated in the specification, and still in use")]
fn hooks(hooks: &Hooks, problems: &mut Problems) {
    for (kind, list) in [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ] {
        for (index, hook) in list.iter().flatten().enumerate() {
            self::hook(hook, &format!("hooks.{kind}[{index}]"), problems);
        }
    }
}

fn hook(hook: &Hook, field: &str, problems: &mut Problems) {
    if !hook.path().is_absolute() {
        problems.add(format!("{field}.path"), format!("{:?} is not absolute", hook.path()));
    }
    if let Some(timeout) = hook.timeout().filter(|timeout| *timeout <= 0) {
        problems.add(format!("{field}.timeout"), format!("{timeout} is not positive"));
    }
}

/// Names that would be set on the host without a namespace of their own.
fn names(spec: &Spec, problems: &mut Problems) {
    let own = has_namespace(spec.linux().as_ref(), LinuxNamespaceType::Uts);
    for (field, name) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        match name {
            Some(name) if !name.is_empty() && !own => problems.add(field, "needs a uts namespace"),
            Some(name) if name.len() > 64 => problems.add(field, "is longer than the kernel's 64 characters"),
            _ => {}
        }
    }
}

fn has_namespace(linux: Option<&Linux>, kind: LinuxNamespaceType) -> bool {
    linux
        .and_then(|linux| linux.namespaces().as_ref())
        .is_some_and(|all| all.iter().any(|ns| ns.typ() == kind))
}

fn linux(linux: &Linux, problems: &mut Problems) {
    namespaces(linux, problems);
    mappings("linux.uidMappings", linux.uid_mappings().as_deref(), problems);
    mappings("linux.gidMappings", linux.gid_mappings().as_deref(), problems);
    let user = has_namespace(Some(linux), LinuxNamespaceType::User);
    if !user && linux.uid_mappings().as_ref().is_some_and(|mappings| !mappings.is_empty()) {
        problems.add("linux.uidMappings", "needs a user namespace");
    }
    if linux.time_offsets().is_some() && !has_namespace(Some(linux), LinuxNamespaceType::Time) {
        problems.add("linux.timeOffsets", "needs a time namespace");
    }
    if let Some(propagation) = linux.rootfs_propagation().as_deref().filter(|p| !p.is_empty()) {
        let word = propagation.strip_prefix('r').unwrap_or(propagation);
        if !["private", "shared", "slave", "unbindable"].contains(&word) {
            let what = format!("{propagation:?} must be private, shared, slave or unbindable");
            problems.add("linux.rootfsPropagation", what);
        }
    }
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        if !device.path().is_absolute() {
            problems
                .add(format!("linux.devices[{index}].path"), format!("{:?} is not absolute", device.path()));
        }
    }
}

fn namespaces(linux: &Linux, problems: &mut Problems) {
    let mut seen = Vec::new();
    for (index, namespace) in linux.namespaces().iter().flatten().enumerate() {
        let field = format!("linux.namespaces[{index}]");
        if seen.contains(&namespace.typ()) {
            problems.add(&field, format!("duplicate of type {:?}", namespace.typ()));
        }
        seen.push(namespace.typ());
        if let Some(path) =
            namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty() && !path.is_absolute())
        {
            problems.add(field + ".path", format!("{path:?} is not absolute"));
        }
    }
}

fn mappings(field: &str, mappings: Option<&[LinuxIdMapping]>, problems: &mut Problems) {
    for (index, mapping) in mappings.unwrap_or_default().iter().enumerate() {
        if mapping.size() == 0 {
            problems.add(format!("{field}[{index}].size"), "is 0");
        }
        for (name, first) in [("containerID", mapping.container_id()), ("hostID", mapping.host_id())] {
            if first.checked_add(mapping.size().saturating_sub(1)).is_none() {
                problems.add(format!("{field}[{index}].{name}"), "the range ends beyond the last id");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn good() -> Value {
        json!({
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["true"]},
            "hostname": "h",
            "linux": {"namespaces": [{"type": "uts"}, {"type": "pid"}]}
        })
    }

    fn problems_of(json: Value) -> Vec<String> {
        validate(&serde_json::from_value(json).expect("a Spec")).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_one() {
        assert_eq!(problems_of(good()), [""; 0]);
    }

    #[test]
    fn one_thing_wrong() {
        for (pointer, value, expected) in [
            ("/ociVersion", json!("2.0.0"), "ociVersion: 2.0.0 is not supported, only 1.x.y"),
            ("/ociVersion", json!("one"), "ociVersion: \"one\" is not a version like 1.3.0"),
            ("/ociVersion", json!("1.0.2-dev"), ""),
            ("/root", json!(null), "root: is missing"),
            ("/process", json!(null), "process: is missing"),
            ("/process/cwd", json!("srv"), "process.cwd: \"srv\" is not absolute"),
            ("/process/args", json!([]), "process.args: is empty"),
            ("/process/args", json!(["a", "b\0"]), "process.args[1]: contains a NUL character"),
            (
                "/process/oomScoreAdj",
                json!(1001),
                "process.oomScoreAdj: 1001 is out of range (-1000 to 1000)",
            ),
            (
                "/process/rlimits",
                json!([{"type": "RLIMIT_CORE", "soft": 1, "hard": 2}, {"type": "RLIMIT_CORE", "soft": 1, "hard": 2}]),
                "process.rlimits[1]: duplicate of RLIMIT_CORE",
            ),
            ("/mounts", json!([{"destination": ""}]), "mounts[0].destination: is empty"),
            (
                "/hooks",
                json!({"poststop": [{"path": "/x"}, {"path": "y"}]}),
                "hooks.poststop[1].path: \"y\" is not absolute",
            ),
            (
                "/hooks",
                json!({"prestart": [{"path": "/x", "timeout": 0}]}),
                "hooks.prestart[0].timeout: 0 is not positive",
            ),
            ("/linux/namespaces", json!([]), "hostname: needs a uts namespace"),
            (
                "/linux/namespaces",
                json!([{"type": "uts"}, {"type": "uts", "path": "x"}]),
                "linux.namespaces[1]: duplicate of type Uts; linux.namespaces[1].path: \"x\" is not absolute",
            ),
            (
                "/linux/rootfsPropagation",
                json!("some"),
                "linux.rootfsPropagation: \"some\" must be private, shared, slave or unbindable",
            ),
            (
                "/linux/uidMappings",
                json!([{"containerID": 0, "hostID": 0, "size": 1}]),
                "linux.uidMappings: needs a user namespace",
            ),
            (
                "/linux/timeOffsets",
                json!({"boottime": {"secs": 1}}),
                "linux.timeOffsets: needs a time namespace",
            ),
        ] {
            let mut json = good();
            let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
            json.pointer_mut(parent).expect("parent")[name] = value;
            assert_eq!(problems_of(json).join("; "), expected, "{pointer}");
        }
    }

    #[test]
    fn all_are_listed() {
        let problems = problems_of(json!({"hostname": "x"}));
        assert_eq!(
            problems,
            [
                "ociVersion: is missing",
                "root: is missing",
                "process: is missing",
                "hostname: needs a uts namespace"
            ]
        );
    }
}
