//! What this machine's kernel hasn't got is refused with a word about it, and nothing is left.

use anyhow::Result;
use integration_support::{Bundle, Kind};
use serde_json::{Value, json};

use crate::{T, has};

crate::each_runtime!(labels, resource_control, metadata_without_a_listener, notify_without_a_listener);

/// The runtime refuses a config with `value` at `pointer`, and says `why`.
fn refused(t: &T<'_>, name: &str, pointer: &str, value: Value, why: &str) -> Result<()> {
    let bundle = Bundle::workload(t.scope, name, &["exit", "0"]).set(pointer, value);
    has(&t.refused(bundle)?, why)
}

fn ours_alone(t: &T<'_>) -> bool {
    let why = "the peers' words, and what they ignore, are their own";
    t.differs(Kind::Runc, why) || t.differs(Kind::Crun, why)
}

fn labels(t: &T<'_>) -> Result<()> {
    if ours_alone(t) {
        return Ok(());
    }
    let label = "system_u:object_r:container_file_t:s0";
    if std::fs::read_to_string("/proc/filesystems")?.contains("selinuxfs") {
        integration_support::skip("this kernel has SELinux");
    } else {
        let why = "SELinux is not enabled in this kernel";
        refused(
            t,
            "process",
            "/process/selinuxLabel",
            json!(label),
            &format!("process.selinuxLabel: {why}"),
        )?;
        refused(t, "mount", "/linux/mountLabel", json!(label), &format!("linux.mountLabel: {why}"))?;
    }
    let apparmor = std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text == b"Y\n");
    let why = if apparmor {
        "ask for the AppArmor profile"
    } else {
        "process.apparmorProfile: AppArmor is not enabled in this kernel"
    };
    refused(t, "apparmor", "/process/apparmorProfile", json!("corten-has-no-such-profile"), why)?;
    // Which is what everything is, without AppArmor.
    let fine = Bundle::workload(t.scope, "fine", &["exit", "0"]);
    t.out(fine.set("/process/apparmorProfile", json!("unconfined"))).map(drop)
}

fn resource_control(t: &T<'_>) -> Result<()> {
    if ours_alone(t) {
        return Ok(());
    }
    if std::fs::read_to_string("/proc/self/mountinfo")?.contains(" - resctrl ") {
        integration_support::skip("this machine has resctrl");
        return Ok(());
    }
    refused(t, "rdt", "/linux/intelRdt", json!({"closID": "gold"}), "linux.intelRdt: no resctrl file system")
}

fn metadata_without_a_listener(t: &T<'_>) -> Result<()> {
    if ours_alone(t) {
        return Ok(());
    }
    refused(t, "meta", "/linux/seccomp/listenerMetadata", json!("x"), "listenerMetadata")
}

fn notify_without_a_listener(t: &T<'_>) -> Result<()> {
    if ours_alone(t) {
        return Ok(());
    }
    let rules = json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]);
    let seccomp = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
    refused(t, "notify", "/linux/seccomp", seccomp, "listenerPath")
}
