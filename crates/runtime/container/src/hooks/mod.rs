//! Hooks (runtime-spec, "POSIX-platform Hooks"): programs of others, run at six points of a container's life with
//! the state as JSON on their stdin.

mod wait;

use std::{
    ffi::{CString, OsStr},
    fs::{File, OpenOptions},
    io::{self, Seek, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{ffi::OsStrExt, fs::OpenOptionsExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use corten_sys::signal;
use nix::sys::memfd::{MFdFlags, memfd_create};
use oci_spec::runtime::Hook;

pub(crate) use wait::Watch;

use crate::{
    Error, Result, State, Status,
    error::{Doing, chain},
    plan::Trusted,
    record::Record,
};

/// The environment of a hook that brings none of its own. (runtime-spec says nothing; it's what runc, crun and youki do,
/// and hooks of others count on a PATH.)
pub(crate) enum Surroundings<'a> {
    /// The runtime's: for hooks that belong to the host.
    Ours,
    /// That of the container's process: for hooks inside.
    Of(&'a [CString]),
}

/// Where the output of hooks goes: to files at whose ends it is appended, else standard output nowhere, and what a failed
/// hook has said on standard error into the error.
#[derive(Debug, Default)]
pub(crate) struct Output {
    stdout: Option<File>,
    stderr: Option<File>,
}

impl Output {
    /// Opens the files now, and makes them if they're missing.
    pub(crate) fn open(trusted: &Trusted) -> Result<Self> {
        let open = |path: &Option<PathBuf>| {
            let Some(path) = path else { return Ok(None) };
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
            file.map(Some).doing(|| format!("open {} for the output of hooks", path.display()))
        };
        Ok(Self { stdout: open(&trusted.hooks_stdout)?, stderr: open(&trusted.hooks_stderr)? })
    }

    /// The open files.
    pub(crate) fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [&self.stdout, &self.stderr].into_iter().flatten().map(AsFd::as_fd)
    }
}

/// Runs the hooks of one kind, in their order; stops at the first that fails.
pub(crate) fn run(
    kind: &'static str,
    hooks: Option<&Vec<Hook>>,
    state: &State,
    cwd: &Path,
    surroundings: &Surroundings<'_>,
    output: &Output,
) -> Result<()> {
    Prepared::new(kind, hooks, state, Watch::Pidfd)?.run(cwd, surroundings, output)
}

/// Hooks, and what it takes to run them beside starting and awaiting processes. Made while no seccomp filter forbids
/// it: what hooks under a filter need then is what any runtime needs. Each hook has a file open until it is run: there may be as many
/// as the process may open files.
pub(crate) struct Prepared<'a> {
    kind: &'static str,
    id: String,
    /// Each with the state as its input.
    hooks: Vec<(&'a Hook, File)>,
    watch: Watch,
}

impl<'a> Prepared<'a> {
    /// `watch`: how their ends are noticed.
    pub(crate) fn new(
        kind: &'static str,
        hooks: Option<&'a Vec<Hook>>,
        state: &State,
        watch: Watch,
    ) -> Result<Self> {
        let mut all = Self { kind, id: state.id.clone(), hooks: Vec::new(), watch };
        let Some(hooks) = hooks.filter(|hooks| !hooks.is_empty()) else { return Ok(all) };
        let json = serde_json::to_vec(state).map_err(|source| Error::Record {
            operation: "write",
            id: state.id.clone(),
            source: source.into(),
        })?;
        for (index, hook) in hooks.iter().enumerate() {
            let stdin = in_memory(&json)
                .map_err(|e| all.failed(index, hook, format!("can't be told the state: {e}")))?;
            all.hooks.push((hook, stdin));
        }
        Ok(all)
    }

    /// The same, for the only thread of a process that will be under a filter; None without hooks.
    pub(crate) fn alone(
        kind: &'static str,
        hooks: Option<&'a Vec<Hook>>,
        state: &State,
    ) -> Result<Option<Self>> {
        if hooks.is_none_or(Vec::is_empty) {
            return Ok(None);
        }
        let watch = Watch::signals().doing(|| "watch children".to_owned())?;
        Self::new(kind, hooks, state, watch).map(Some)
    }

    /// Runs them.
    pub(crate) fn run(mut self, cwd: &Path, surroundings: &Surroundings<'_>, output: &Output) -> Result<()> {
        for (index, (hook, stdin)) in std::mem::take(&mut self.hooks).into_iter().enumerate() {
            tracing::debug!("container {}: {} hook #{index}: {}", self.id, self.kind, hook.path().display());
            one(hook, stdin, cwd, surroundings, output, &self.watch)
                .map_err(|reason| self.failed(index, hook, reason))?;
        }
        Ok(())
    }

    fn failed(&self, index: usize, hook: &Hook, reason: String) -> Error {
        Error::Hook { kind: self.kind, index, path: hook.path().clone(), reason }
    }
}

/// Runs all poststop hooks of a container that is gone. Each is run, whatever the others do; none can undo the
/// deletion (runtime-spec, step 13).
pub(crate) fn poststop(record: &Record) {
    if record.poststop.is_empty() {
        return;
    }
    let state = record.state(Status::Stopped);
    let output = Output::open(&record.trusted).unwrap_or_else(|e| {
        tracing::warn!("{}", chain(&e));
        Output::default()
    });
    for hook in &record.poststop {
        if let Err(e) =
            run("poststop", Some(&vec![hook.clone()]), &state, &record.bundle, &Surroundings::Ours, &output)
        {
            tracing::warn!("{}", chain(&e));
        }
    }
}

fn one(
    hook: &Hook,
    state: File,
    cwd: &Path,
    surroundings: &Surroundings<'_>,
    output: &Output,
    watch: &Watch,
) -> Result<(), String> {
    let timeout = match hook.timeout() {
        Some(seconds) if seconds <= 0 => {
            return Err(format!("has a timeout of {seconds} s, which must be above 0"));
        }
        Some(seconds) => Some(Duration::from_secs(seconds.unsigned_abs())),
        None => None,
    };
    let child = spawn(hook, cwd, state, surroundings, output).map_err(|e| format!("can't be run: {e}"))?;
    wait::wait(child, timeout, watch)
}

/// The state as a file. (To write it into a pipe could take as long as the hook, which needn't read it.)
fn in_memory(state: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"state.json", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(state)?;
    file.rewind()?;
    Ok(file)
}

fn spawn(
    hook: &Hook,
    cwd: &Path,
    stdin: File,
    surroundings: &Surroundings<'_>,
    output: &Output,
) -> io::Result<Child> {
    let mut command = Command::new(hook.path());
    if let Some((name, args)) = hook.args().as_ref().and_then(|args| args.split_first()) {
        command.arg0(name).args(args);
    }
    match (hook.env(), surroundings) {
        (Some(own), _) => {
            let split = |entry: &String| {
                entry.split_once('=').map_or((entry.clone(), String::new()), |(n, v)| (n.into(), v.into()))
            };
            command.env_clear().envs(own.iter().map(split));
        }
        (None, Surroundings::Of(process)) => {
            let entries = process.iter().map(|entry| entry.to_bytes());
            let split = entries.filter_map(|entry| {
                let at = entry.iter().position(|&byte| byte == b'=')?;
                Some((OsStr::from_bytes(&entry[..at]), OsStr::from_bytes(&entry[at + 1..])))
            });
            command.env_clear().envs(split);
        }
        (None, Surroundings::Ours) => {}
    }
    // In the foreground we have all signals blocked.
    signal::unblocked(&mut command);
    let to = |file: &Option<File>, otherwise: Stdio| match file {
        Some(file) => file.try_clone().map(Stdio::from),
        None => Ok(otherwise),
    };
    command.current_dir(cwd).stdin(stdin);
    command.stdout(to(&output.stdout, Stdio::null())?).stderr(to(&output.stderr, Stdio::piped())?).spawn()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Instant};

    use oci_spec::runtime::HookBuilder;

    use super::*;

    fn state() -> State {
        State {
            oci_version: "1.3.0".to_owned(),
            id: "c1".to_owned(),
            pid: 7,
            status: Status::Creating,
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: String::new(),
            annotations: BTreeMap::new(),
            owner: String::new(),
        }
    }

    fn sh(script: &str, timeout: Option<i64>) -> Vec<Hook> {
        let args = vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
        let mut hook = HookBuilder::default().path("/bin/sh").args(args).build().expect("hook");
        hook.set_timeout(timeout);
        vec![hook]
    }

    fn run_sh(script: &str, timeout: Option<i64>) -> Result<()> {
        run(
            "prestart",
            Some(&sh(script, timeout)),
            &state(),
            Path::new("/"),
            &Surroundings::Ours,
            &Output::default(),
        )
    }

    #[test]
    fn a_hook_reads_the_state() {
        run_sh(r#"grep -q '"id":"c1"'"#, None).expect("the state has the id");
    }

    #[test]
    fn a_hook_without_an_environment_gets_one() {
        let process = [c"COLOUR=red".to_owned()];
        let inside = Surroundings::Of(&process);
        let check = |script, surroundings| {
            run(
                "prestart",
                Some(&sh(script, None)),
                &state(),
                Path::new("/"),
                surroundings,
                &Output::default(),
            )
        };
        check("test \"$COLOUR\" = red && test -z \"$CARGO_PKG_NAME\"", &inside).expect("the process's own");
        check("test -n \"$CARGO_PKG_NAME\"", &Surroundings::Ours).expect("the runtime's own");
        let mut hooks = sh("test -z \"$CARGO_PKG_NAME$COLOUR\"", None);
        hooks[0].set_env(Some(Vec::new()));
        run("prestart", Some(&hooks), &state(), Path::new("/"), &inside, &Output::default())
            .expect("an empty one is one");
    }

    #[test]
    fn output_is_appended() {
        let dir = tempfile::tempdir().expect("temp dir");
        let [out, err] = ["out", "err"].map(|name| dir.path().join(name));
        std::fs::write(&out, "before\n").expect("write");
        let trusted = Trusted {
            hooks_stdout: Some(out.clone()),
            hooks_stderr: Some(err.clone()),
            ..Trusted::default()
        };
        let output = Output::open(&trusted).expect("files");
        let hooks = sh("echo said; echo complained >&2; exit 3", None);
        let error = run("prestart", Some(&hooks), &state(), Path::new("/"), &Surroundings::Ours, &output)
            .expect_err("it fails");
        assert!(error.to_string().ends_with("status 3"), "{error}");
        let text = |path| std::fs::read_to_string(path).expect("read");
        assert_eq!((text(&out).as_str(), text(&err).as_str()), ("before\nsaid\n", "complained\n"));
    }

    #[test]
    fn a_hook_that_does_not_read_is_fine() {
        run_sh("exec /bin/true", None).expect("EPIPE is no failure");
    }

    #[test]
    fn a_hook_that_does_not_read_much_is_killed_in_time() {
        // More than a pipe takes.
        let state = State { annotations: [("x".to_owned(), "y".repeat(1 << 20))].into(), ..state() };
        let hooks = sh("exec sleep 1000", Some(1));
        let error =
            run("prestart", Some(&hooks), &state, Path::new("/"), &Surroundings::Ours, &Output::default())
                .expect_err("it hangs");
        assert!(error.to_string().contains("timeout of 1 s"), "{error}");
    }

    #[test]
    fn a_failing_hook_says_why() {
        let error = run_sh("echo no such luck >&2; exit 3", None).expect_err("it fails");
        assert_eq!(
            error.to_string(),
            "error running prestart hook #0: /bin/sh exited with status 3: no such luck"
        );
    }

    #[test]
    fn a_hanging_hook_is_killed() {
        let error = run_sh("exec sleep 1000", Some(1)).expect_err("it hangs");
        assert!(error.to_string().contains("timeout of 1 s"), "{error}");
    }

    #[test]
    fn a_hook_that_never_stops_writing_is_killed() {
        let error = run_sh("yes >&2", Some(1)).expect_err("it goes on for ever");
        assert!(error.to_string().contains("timeout of 1 s"), "{error}");
    }

    #[test]
    fn a_grandchild_that_never_stops_writing_does_not_hang_us() {
        run_sh("yes >&2 & exit 0", None).expect("the hook itself has ended");
    }

    #[test]
    fn a_hook_has_no_signals_blocked() {
        // As in the foreground. The thread is this test's own.
        nix::sys::signal::SigSet::all().thread_block().expect("block");
        // exec, as dash unblocks all for what it forks.
        run_sh("exec grep -Eq '^SigBlk:[[:space:]]0+$' /proc/self/status", None).expect("none is blocked");
    }

    #[test]
    fn a_grandchild_that_holds_stderr_does_not_hang_us() {
        let before = Instant::now();
        run_sh("sleep 30 & exit 0", None).expect("the hook itself has ended");
        assert!(before.elapsed() < Duration::from_secs(20));
    }
}
