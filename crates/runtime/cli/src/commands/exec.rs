//! `exec`: the process comes from a file, or is the container's own with the options laid over it.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result, bail};
use corten_container::{ExecOptions, Runtime};
use oci_spec::runtime::{Capability, LinuxCapabilities, Process};

use crate::args::Exec;

pub(crate) fn run(runtime: &Runtime, exec: &Exec) -> Result<u8> {
    let process = match &exec.process {
        Some(path) => read(path)?,
        None => overlay(runtime.process(&exec.id)?, exec)?,
    };
    let options = ExecOptions {
        console_socket: exec.console_socket.clone(),
        pidfd_socket: exec.pidfd_socket.clone(),
        pid_file: exec.pid_file.clone(),
        detach: exec.detach,
        preserve_fds: exec.preserve_fds,
        ignore_paused: exec.ignore_paused,
        cgroups: exec.cgroup.clone(),
        ..ExecOptions::new(process)
    };
    Ok(super::exit_code(runtime.exec(&exec.id, &options)?))
}

fn read(path: &Path) -> Result<Process> {
    let file = File::open(path).with_context(|| format!("can't open the process file {}", path.display()))?;
    serde_json::from_reader(BufReader::new(file))
        .with_context(|| format!("the process file {} is wrong", path.display()))
}

/// The container's own process with what the command line asks for.
fn overlay(mut process: Process, exec: &Exec) -> Result<Process> {
    if exec.command.is_empty() {
        bail!("exec needs a command, or --process FILE");
    }
    process.set_args(Some(exec.command.clone())).set_terminal(Some(exec.tty));
    if let Some(cwd) = &exec.cwd {
        process.set_cwd(cwd.clone());
    }
    process.env_mut().get_or_insert_default().extend(exec.env.iter().cloned());
    if let Some(user) = &exec.user {
        let (uid, gid) = parse_user(user)?;
        // A user without a group keeps the container's group, as runc does.
        process.user_mut().set_uid(uid);
        if let Some(gid) = gid {
            process.user_mut().set_gid(gid);
        }
    }
    if !exec.additional_gids.is_empty() {
        process.user_mut().set_additional_gids(Some(exec.additional_gids.clone()));
    }
    if let Some(label) = &exec.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    if let Some(profile) = &exec.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if exec.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if !exec.cap.is_empty() {
        let capabilities = with_capabilities(process.capabilities().clone().unwrap_or_default(), &exec.cap)?;
        process.set_capabilities(Some(capabilities));
    }
    Ok(process)
}

/// `UID` or `UID:GID`. Anything but decimal numbers is refused: a lenient parser ends at root (CVE-2026-30892).
fn parse_user(text: &str) -> Result<(u32, Option<u32>)> {
    let number = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse::<u32>()
            .ok()
            .filter(|_| digits)
            .with_context(|| format!("user {text:?} is not UID or UID:GID"))
    };
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number(uid)?, Some(number(gid)?))),
        None => Ok((number(text)?, None)),
    }
}

/// Adds to every set but the ambient one, as runc does.
fn with_capabilities(mut sets: LinuxCapabilities, names: &[String]) -> Result<LinuxCapabilities> {
    for name in names {
        let upper = name.to_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let capability =
            Capability::try_from(bare).ok().with_context(|| format!("unknown capability {name:?}"))?;
        let add = |set: &Option<oci_spec::runtime::Capabilities>| {
            let mut set = set.clone().unwrap_or_default();
            set.insert(capability);
            Some(set)
        };
        let (bounding, effective) = (add(sets.bounding()), add(sets.effective()));
        let (permitted, inheritable) = (add(sets.permitted()), add(sets.inheritable()));
        sets.set_bounding(bounding)
            .set_effective(effective)
            .set_permitted(permitted)
            .set_inheritable(inheritable);
    }
    Ok(sets)
}

#[cfg(test)]
mod tests {
    use super::parse_user;

    #[test]
    fn users_are_numbers_and_nothing_else() {
        assert_eq!(parse_user("1000").expect("valid"), (1000, None));
        assert_eq!(parse_user("1:2").expect("valid"), (1, Some(2)));
        for text in ["", ":", "1:", ":1", "root", "+1", "-1", " 1", "4294967296", "1:2:3", "0x0"] {
            assert!(parse_user(text).is_err(), "{text:?}");
        }
    }
}
