//! All that can be said about a config.json without looking at the host, or knowing what a runtime supports.

use std::collections::HashSet;

use oci_spec::runtime::{Hook, Linux, LinuxIdMapping, Process, Spec};

use crate::Problem;

/// Lists everything that is wrong with the config, by the rules of runtime-spec 1.3.
#[must_use]
pub fn validate(spec: &Spec) -> Vec<Problem> {
    let mut problems = Problems(Vec::new());
    version(spec.version(), &mut problems);
    if spec.root().as_ref().is_some_and(|root| root.path().as_os_str().is_empty()) {
        problems.add("root.path", "is empty");
    }
    for (i, mount) in spec.mounts().iter().flatten().enumerate() {
        if mount.destination().as_os_str().is_empty() {
            problems.add(&format!("mounts[{i}].destination"), "is empty");
        }
    }
    if let Some(process) = spec.process() {
        self::process(process, &mut problems);
    }
    if let Some(linux) = spec.linux() {
        self::linux(linux, &mut problems);
    }
    hooks(spec, &mut problems);
    problems.0
}

struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, field: &str, what: impl Into<String>) {
        self.0.push(Problem { field: field.to_owned(), what: what.into() });
    }
}

/// SemVer 2.0 of the first major version. A newer minor version is no reason to refuse: what is unknown in it is ignored.
fn version(version: &str, problems: &mut Problems) {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Option<Vec<u64>> = core.split('.').map(|part| part.parse().ok()).collect();
    match numbers.as_deref() {
        Some([1, _, _]) => {}
        Some([_, _, _]) => problems.add("ociVersion", format!("{version:?} is not supported: only 1.x.y is")),
        _ => problems.add("ociVersion", format!("{version:?} is not a version as SemVer 2.0 has them")),
    }
}

fn process(process: &Process, problems: &mut Problems) {
    let mut seen = HashSet::new();
    for (i, limit) in process.rlimits().iter().flatten().enumerate() {
        if !seen.insert(limit.typ().to_string()) {
            problems.add(&format!("process.rlimits[{i}]"), format!("{} is given twice", limit.typ()));
        }
        if limit.soft() > limit.hard() {
            let what = format!(
                "{}: the soft limit {} is above the hard limit {}",
                limit.typ(),
                limit.soft(),
                limit.hard()
            );
            problems.add(&format!("process.rlimits[{i}]"), what);
        }
    }
    for (i, variable) in process.env().iter().flatten().enumerate() {
        if variable.is_empty() || variable.starts_with('=') {
            problems.add(&format!("process.env[{i}]"), format!("{variable:?} is not NAME=VALUE"));
        }
    }
}

fn linux(linux: &Linux, problems: &mut Problems) {
    mappings("linux.uidMappings", linux.uid_mappings().as_deref(), problems);
    mappings("linux.gidMappings", linux.gid_mappings().as_deref(), problems);
}

/// Ranges must not be empty, run over the end, or overlap in the container.
fn mappings(field: &str, list: Option<&[LinuxIdMapping]>, problems: &mut Problems) {
    let list = list.unwrap_or_default();
    let range =
        |m: &LinuxIdMapping| (u64::from(m.container_id()), u64::from(m.container_id()) + u64::from(m.size()));
    for (i, mapping) in list.iter().enumerate() {
        let at = format!("{field}[{i}]");
        let limit = u64::from(u32::MAX) + 1;
        if mapping.size() == 0 {
            problems.add(&at, "size is 0");
            continue;
        }
        if range(mapping).1 > limit || u64::from(mapping.host_id()) + u64::from(mapping.size()) > limit {
            problems.add(&at, "goes beyond the largest id");
        }
        let (start, end) = range(mapping);
        if list[..i].iter().map(range).any(|(s, e)| start < e && s < end) {
            problems.add(&at, "overlaps with one before it");
        }
    }
}

fn hooks(spec: &Spec, problems: &mut Problems) {
    let Some(hooks) = spec.hooks() else { return };
    #[allow(deprecated, reason = "prestart is deprecated, and in use")]
    let all: [(&str, &Option<Vec<Hook>>); 6] = [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ];
    for (kind, list) in all {
        for (i, hook) in list.iter().flatten().enumerate() {
            if !hook.path().is_absolute() {
                problems.add(
                    &format!("hooks.{kind}[{i}].path"),
                    format!("{} is not absolute", hook.path().display()),
                );
            }
            if let Some(timeout) = hook.timeout().filter(|timeout| *timeout <= 0) {
                problems.add(&format!("hooks.{kind}[{i}].timeout"), format!("{timeout} is not above 0"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn problems(config: Value) -> Vec<String> {
        let spec: Spec = serde_json::from_value(config).expect("well-typed");
        validate(&spec).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_sound_config_has_no_problem() {
        assert_eq!(problems(json!({"ociVersion": "1.3.0-rc1+x", "root": {"path": "rootfs"}})), [""; 0]);
        let spec = Spec::default();
        assert_eq!(validate(&spec), []);
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let found = problems(json!({
            "ociVersion": "2.0.0",
            "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["=x"],
                "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 2, "hard": 1}, {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}]},
            "hooks": {"poststop": [{"path": "relative", "timeout": 0}]},
            "linux": {"uidMappings": [{"containerID": 0, "hostID": 0, "size": 2}, {"containerID": 1, "hostID": 9, "size": 0},
                {"containerID": 1, "hostID": 4294967295u32, "size": 2}]},
        }));
        let expected = [
            "ociVersion: \"2.0.0\" is not supported: only 1.x.y is",
            "process.rlimits[0]: RLIMIT_NOFILE: the soft limit 2 is above the hard limit 1",
            "process.rlimits[1]: RLIMIT_NOFILE is given twice",
            "process.env[0]: \"=x\" is not NAME=VALUE",
            "linux.uidMappings[1]: size is 0",
            "linux.uidMappings[2]: goes beyond the largest id",
            "linux.uidMappings[2]: overlaps with one before it",
            "hooks.poststop[0].path: relative is not absolute",
            "hooks.poststop[0].timeout: 0 is not above 0",
        ];
        assert_eq!(found, expected);
    }
}
