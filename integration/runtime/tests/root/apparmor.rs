//! AppArmor profiles, on a machine that has it: the guest `plain` of `cargo xtask test vm`.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use integration_support::Kind;
use serde_json::json;

use crate::{T, has};

crate::each_runtime!(
    processes_have_their_profiles,
    a_profile_that_is_not_loaded_is_refused,
    profiles_can_be_stacked,
    a_profile_is_enforced,
);

/// Two profiles of the test's, loaded until it is dropped.
pub(crate) struct Profiles {
    text: String,
    pub(crate) one: String,
    pub(crate) other: String,
}

impl Profiles {
    /// `None`, and a skip, without AppArmor.
    pub(crate) fn load(t: &T<'_>) -> Result<Option<Self>> {
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
        if enabled.trim() != "Y" || !std::path::Path::new("/sys/kernel/security/apparmor").exists() {
            integration_support::skip("AppArmor is not enabled in this kernel");
            return Ok(None);
        }
        let (one, other) = (t.scope.id("one"), t.scope.id("other"));
        let rules = "file, capability, network, mount, umount, pivot_root, signal, ptrace, unix,";
        let flags = "flags=(attach_disconnected,mediate_deleted)";
        let text = format!(
            "profile {one} {flags} {{ {rules} deny /secret rw, }}\nprofile {other} {flags} {{ {rules} }}\n"
        );
        let profiles = Self { text, one, other };
        profiles.parser("--replace")?;
        Ok(Some(profiles))
    }

    fn parser(&self, what: &str) -> Result<()> {
        let mut parser = Command::new("apparmor_parser");
        parser.args([what, "--skip-cache"]).stdin(Stdio::piped());
        let mut child = parser.spawn().context("start apparmor_parser")?;
        child.stdin.take().context("no input")?.write_all(self.text.as_bytes())?;
        ensure!(child.wait()?.success(), "apparmor_parser {what} failed");
        Ok(())
    }
}

impl Drop for Profiles {
    fn drop(&mut self) {
        self.parser("--remove").ok(); // because the guest ends soon
    }
}

const READ: [&str; 2] = ["/bin/cat", "/proc/self/attr/current"];

fn processes_have_their_profiles(t: &T<'_>) -> Result<()> {
    let Some(profiles) = Profiles::load(t)? else { return Ok(()) };
    for no_new_privileges in [true, false] {
        let bundle = t.sh("sleep 1000").set("/process/apparmorProfile", json!(profiles.one));
        let container = t.start(bundle.set("/process/noNewPrivileges", json!(no_new_privileges)))?;
        let init = std::fs::read_to_string(format!("/proc/{}/attr/current", container.pid()?))?;
        has(&init, &format!("{} (enforce)", profiles.one))?;
        has(&container.exec(&[], &READ)?.ok()?.stdout, &profiles.one)?;
        let exec = container.exec(&["--apparmor", &profiles.other], &READ)?.ok()?.stdout;
        has(&exec, &format!("{} (enforce)", profiles.other))?;
        container.delete(&["--force"])?;
    }
    Ok(())
}

fn a_profile_that_is_not_loaded_is_refused(t: &T<'_>) -> Result<()> {
    let Some(profiles) = Profiles::load(t)? else { return Ok(()) };
    let missing = t.scope.id("missing");
    let refused = t.refused(t.sh("exit 0").set("/process/apparmorProfile", json!(missing)))?;
    if t.rt.kind() == Kind::Corten {
        has(&refused, &missing)?;
    }
    let container = t.start(t.sh("sleep 1000").set("/process/apparmorProfile", json!(profiles.one)))?;
    let refused = container.exec(&["--apparmor", &missing], &READ)?.err()?;
    if t.rt.kind() == Kind::Corten {
        has(&refused.stderr, &missing)?;
    }
    ensure!(container.status()? == "running");
    container.delete(&["--force"])
}

fn profiles_can_be_stacked(t: &T<'_>) -> Result<()> {
    let Some(profiles) = Profiles::load(t)? else { return Ok(()) };
    let both = format!("{}//&{}", profiles.one, profiles.other);
    let out = t.out(t.sh("cat /proc/self/attr/current").set("/process/apparmorProfile", json!(both)))?;
    ensure!(out.contains(&profiles.one) && out.contains(&profiles.other), "{out}");
    Ok(())
}

fn a_profile_is_enforced(t: &T<'_>) -> Result<()> {
    let Some(profiles) = Profiles::load(t)? else { return Ok(()) };
    let script = "echo x > /open && echo open; echo x > /secret || echo closed";
    let bundle = t.sh(script).set("/process/apparmorProfile", json!(profiles.one));
    let out = t.out(bundle)?;
    ensure!(out == "open\nclosed\n", "{out}");
    Ok(())
}
