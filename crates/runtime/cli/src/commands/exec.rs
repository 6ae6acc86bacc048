//! `exec`: the process from a file, or the container's own with changes.

use std::{collections::HashSet, fs, str::FromStr as _};

use anyhow::{Context as _, Result, bail};
use corten_container::{ExecOptions, Runtime};
use oci_spec::runtime::{Capability, LinuxCapabilities, Process};

use super::exit_code;
use crate::args::Exec;

#[inline(never)]
pub(crate) fn exec(runtime: &Runtime, args: Exec) -> Result<u8> {
    let process = match &args.process {
        Some(path) => {
            let json = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            corten_bundle::parse(&json, path)?
        }
        None if args.command.is_empty() => {
            bail!("process args cannot be empty: give a command, or --process")
        }
        None => change(runtime.process(&args.id)?, &args)?,
    };
    let options = ExecOptions {
        process,
        console_socket: args.console_socket,
        pidfd_socket: args.pidfd_socket,
        pid_file: args.pid_file,
        detach: args.detach,
        preserve_fds: args.preserve_fds,
        ignore_paused: args.ignore_paused,
        cgroups: args.cgroup,
    };
    Ok(exit_code(runtime.exec(&args.id, &options)?))
}

/// The container's process with what the flags change.
fn change(mut process: Process, args: &Exec) -> Result<Process> {
    process.set_args(Some(args.command.clone()));
    process.set_terminal(Some(args.tty));
    if let Some(cwd) = &args.cwd {
        process.set_cwd(cwd.clone());
    }
    if !args.env.is_empty() {
        let mut env = process.env().clone().unwrap_or_default();
        env.extend(args.env.iter().cloned());
        process.set_env(Some(env));
    }
    if let Some(label) = &args.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    if let Some(profile) = &args.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if args.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if !args.cap.is_empty() {
        process.set_capabilities(Some(capabilities(process.capabilities().as_ref(), &args.cap)?));
    }
    user(&mut process, args)?;
    Ok(process)
}

fn user(process: &mut Process, args: &Exec) -> Result<()> {
    if let Some(user) = &args.user {
        let (uid, gid) = user.split_once(':').map_or((user.as_str(), None), |(uid, gid)| (uid, Some(gid)));
        let parse =
            |id: &str| id.parse::<u32>().with_context(|| format!("--user {user:?}: must be UID or UID:GID"));
        // Parsed before anything is set: a user that can't be read must never end as root.
        let (uid, gid) = (parse(uid)?, gid.map(parse).transpose()?);
        process.user_mut().set_uid(uid);
        if let Some(gid) = gid {
            process.user_mut().set_gid(gid);
        }
    }
    if !args.additional_gids.is_empty() {
        let mut groups = process.user().additional_gids().clone().unwrap_or_default();
        groups.extend(&args.additional_gids);
        process.user_mut().set_additional_gids(Some(groups));
    }
    Ok(())
}

/// Adds capabilities to all sets but the inheritable one; to the ambient one only where the container has inheritable
/// capabilities, as runc does it: what isn't inheritable can't be ambient.
fn capabilities(old: Option<&LinuxCapabilities>, names: &[String]) -> Result<LinuxCapabilities> {
    let mut capabilities = old.cloned().unwrap_or_else(none);
    let added = names.iter().map(|name| {
        let name = name.to_ascii_uppercase();
        let short = name.strip_prefix("CAP_").unwrap_or(&name);
        Capability::from_str(short).ok().with_context(|| format!("unknown capability {name:?}"))
    });
    let added: HashSet<Capability> = added.collect::<Result<_>>()?;
    let with =
        |set: &Option<HashSet<Capability>>| Some(set.iter().flatten().chain(&added).copied().collect());
    let sets =
        (with(capabilities.bounding()), with(capabilities.effective()), with(capabilities.permitted()));
    if capabilities.inheritable().is_some() {
        let ambient = with(capabilities.ambient());
        capabilities.set_ambient(ambient);
    }
    capabilities.set_bounding(sets.0).set_effective(sets.1).set_permitted(sets.2);
    Ok(capabilities)
}

/// No capabilities: the type's default is some.
fn none() -> LinuxCapabilities {
    let mut none = LinuxCapabilities::default();
    none.set_bounding(None).set_effective(None).set_inheritable(None).set_permitted(None).set_ambient(None);
    none
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn changed(line: &str) -> Result<Process> {
        let words = format!("corten exec {line}");
        let Some(Command::Exec(args)) = Cli::try_parse_from(words.split(' ')).expect(line).command else {
            panic!()
        };
        let template = r#"{"terminal":true,"user":{"uid":5,"gid":6,"additionalGids":[7]},"args":["init"],
            "env":["A=1"],"cwd":"/srv","noNewPrivileges":false,
            "capabilities":{"bounding":["CAP_CHOWN"],"effective":["CAP_CHOWN"]}}"#;
        change(serde_json::from_str(template).expect("process"), &args)
    }

    #[test]
    fn what_is_not_said_stays() {
        let process = changed("x true").expect("fine");
        assert_eq!(process.args().as_deref(), Some(&["true".to_owned()][..]));
        assert_eq!(process.terminal(), Some(false));
        assert_eq!(
            (process.user().uid(), process.user().gid(), process.cwd().to_str()),
            (5, 6, Some("/srv"))
        );
        assert_eq!(process.no_new_privileges(), Some(false));
    }

    #[test]
    fn what_is_said_changes() {
        let process =
            changed("-t -e B=2 --cwd / -u 1000:100 -g 8,9 --no-new-privs --cap net_raw --cap CAP_KILL x sh")
                .expect("fine");
        assert_eq!(process.env().as_deref(), Some(&["A=1".to_owned(), "B=2".to_owned()][..]));
        assert_eq!((process.user().uid(), process.user().gid()), (1000, 100));
        assert_eq!(process.user().additional_gids().as_deref(), Some(&[7, 8, 9][..]));
        assert_eq!((process.terminal(), process.no_new_privileges()), (Some(true), Some(true)));
        let sets = process.capabilities().as_ref().expect("capabilities");
        assert_eq!(sets.effective().as_ref().map(HashSet::len), Some(3));
        assert_eq!(sets.permitted().as_ref().map(HashSet::len), Some(2));
        assert_eq!(sets.ambient(), &None);
    }

    #[test]
    fn a_user_that_cannot_be_read_is_never_root() {
        for user in ["root", "1000:", ":5", "1000:staff", "-1", "4294967296"] {
            assert!(changed(&format!("--user={user} x true")).is_err(), "{user}");
        }
        assert!(changed("--cap BOGUS x true").is_err());
    }
}
