//! The first process: its arguments, environment and identity.

use serde_json::{Value, json};

use super::Input;
use super::capabilities::Capabilities;
use crate::{Error, Result};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The `process` section.
pub(super) fn of(input: &Input<'_>, capabilities: &Capabilities) -> Result<Value> {
    let config = input.config;
    let identity = input.identity;
    let cwd = match (config.working_dir.as_str(), input.image.working_dir().as_deref()) {
        ("", None | Some("")) => "/",
        ("", Some(dir)) | (dir, _) => dir,
    };
    if !cwd.starts_with('/') {
        return Err(Error::invalid(format!("working directory {cwd:?} is not absolute")));
    }
    Ok(json!({
        "terminal": config.tty,
        "user": {"uid": identity.uid, "gid": identity.gid, "additionalGids": identity.groups},
        "args": arguments(input)?,
        "env": environment(input)?,
        "cwd": cwd,
        "capabilities": capabilities.to_json(),
        "noNewPrivileges": input.security().no_new_privs,
        "oomScoreAdj": input.resources().oom_score_adj,
    }))
}

/// `process` for a command in a running container: as its first process, without a terminal.
pub(crate) fn for_exec(process: &Value, command: &[String]) -> Value {
    let mut process = process.clone();
    process["args"] = json!(command);
    process["terminal"] = json!(false);
    process
}

/// The request's command replaces the image's entrypoint and its default arguments; the request's arguments replace
/// only the latter.
fn arguments(input: &Input<'_>) -> Result<Vec<String>> {
    let (command, args) = (&input.config.command, &input.config.args);
    let mut all = command.clone();
    if command.is_empty() {
        all.extend(input.image.entrypoint().iter().flatten().cloned());
        if args.is_empty() {
            all.extend(input.image.cmd().iter().flatten().cloned());
        }
    }
    all.extend(args.iter().cloned());
    match all.first() {
        None => Err(Error::invalid("no command: neither the request nor the image has one")),
        Some(program) if program.is_empty() => Err(Error::invalid("the command's first word is empty")),
        Some(_) => Ok(all),
    }
}

/// Defaults, the image's, the request's: the last one of a name wins and stands where the first one stood.
fn environment(input: &Input<'_>) -> Result<Vec<String>> {
    let mut all = vec![PATH.to_owned(), format!("HOSTNAME={}", input.pod.hostname)];
    if input.config.tty {
        all.push("TERM=xterm".to_owned());
    }
    for variable in input.image.env().iter().flatten() {
        put(&mut all, variable.clone());
    }
    for variable in &input.config.envs {
        let value = std::str::from_utf8(&variable.value).map_err(|_| {
            // The runtime is configured in JSON, which has no way to write such bytes.
            Error::Unsupported(format!("a value of {} that isn't UTF-8", variable.key))
        })?;
        if variable.key.is_empty() || variable.key.contains('=') || value.contains('\0') {
            return Err(Error::invalid(format!("environment variable {:?} is malformed", variable.key)));
        }
        put(&mut all, format!("{}={value}", variable.key));
    }
    Ok(all)
}

fn put(all: &mut Vec<String>, variable: String) {
    let name = |text: &str| text.split('=').next().map(str::to_owned);
    let wanted = name(&variable);
    match all.iter_mut().find(|existing| name(existing) == wanted) {
        Some(existing) => *existing = variable,
        None => all.push(variable),
    }
}
