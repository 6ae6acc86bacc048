//! `cargo xtask hot`: which functions the commands of a container's life execute, as a linker script that puts them next to
//! each other (crates/runtime/cli/hot.ld).
//!
//! The kernel maps a program's pages in windows of 64 KiB around each page that is missed. What is executed, spread over
//! megabytes between what hardly ever is, costs a fault per window and counts as resident memory. The commands are run with a
//! breakpoint at each function: that sees everything, on any machine. What `run` itself executes comes first, then what only its
//! init does, then what only other commands do, as none of these needs the others' pages.
//!
//! Names in the script have wildcards where compiler and crate versions show, so that it stays good for a while: what
//! doesn't match any more is only linked elsewhere. Run this again when much has changed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use integration_support::{Scope, wait_for};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::bench;
use crate::build::{self, HOT};
use crate::run::{output, root};

/// Traces the commands of a container's life and writes the script.
pub(crate) fn write() -> Result<()> {
    let binary = build::corten_unstripped()?;
    let symbols = Symbols::read(&binary)?;
    let mut hot = Hot::default();
    Scope::test("hot", |scope| {
        let state = scope.make_dir("state")?;
        // What Kubernetes has mounted into a container, and the flags that the shim gives and people do.
        let files = bench::files(scope)?;
        let short = bench::bundle(scope, "true", &["/bin/true"], &files)?;
        let long = bench::bundle(scope, "sleep", &["/bin/sleep", "100000"], &files)?;
        let (log, pid_file, process) = (state.join("log"), state.join("pid"), state.join("process.json"));
        std::fs::write(&process, long.config()["process"].to_string())?;
        let mut traced = |verb: &str, arguments: &[&str]| {
            let global = ["--root", text(&state)?, "--log-format", "json", "--log", text(&log)?];
            let arguments = [&global[..if verb == "run" { 2 } else { 6 }], &[verb], arguments].concat();
            trace(&binary, &arguments, &symbols, &mut hot).with_context(|| format!("trace {verb}"))
        };
        traced("run", &["-b", text(short.dir())?, short.id()])?;
        traced("create", &["--bundle", text(long.dir())?, "--pid-file", text(&pid_file)?, "--", long.id()])?;
        traced("start", &[long.id()])?;
        traced("exec", &[long.id(), "/bin/true"])?;
        let exec =
            ["--detach", "--process", text(&process)?, "--pid-file", text(&pid_file)?, "--", long.id()];
        traced("exec", &exec)?;
        traced("state", &[long.id()])?;
        traced("kill", &["--", long.id(), "9"])?;
        wait_for("the container to stop", || {
            let mut state_of = Command::new(&binary);
            let output = state_of.arg("--root").arg(&state).args(["state", long.id()]).output();
            output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("\"stopped\""))
        })?;
        traced("delete", &["--force", long.id()])
    })?;
    let names = hot.names(&symbols);
    let script = script(&names, &members()?);
    std::fs::write(root().join(HOT), script).with_context(|| format!("write {HOT}"))?;
    println!("{HOT}: {} functions", names.len());
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that isn't UTF-8")
}

/// The functions of a binary, by address.
struct Symbols(Vec<(u64, String)>);

impl Symbols {
    fn read(binary: &Path) -> Result<Self> {
        let listing = output(Command::new("nm").args(["-n", "--defined-only"]).arg(binary))?;
        let mut functions = Vec::new();
        for line in String::from_utf8_lossy(&listing).lines() {
            let mut words = line.split_whitespace();
            if let (Some(address), Some("t" | "T" | "w" | "W" | "i"), Some(name)) =
                (words.next(), words.next(), words.next())
            {
                functions.push((u64::from_str_radix(address, 16)?, name.to_owned()));
            }
        }
        ensure!(functions.len() > 1000, "{} has been stripped of its names", binary.display());
        Ok(Self(functions))
    }

    /// The function that begins at an address.
    fn at(&self, address: u64) -> Option<&str> {
        let index = self.0.binary_search_by_key(&address, |(start, _)| *start).ok()?;
        Some(&self.0[index].1)
    }
}

/// Who executes which function. Each command is two: itself, and what it clones.
#[derive(Default)]
struct Hot {
    /// How many there have been so far.
    processes: u32,
    /// By address: a bit for each that executes it, and when it was executed first.
    seen: HashMap<u64, (u32, usize)>,
}

impl Hot {
    fn note(&mut self, process: u32, address: u64) {
        let next = self.seen.len();
        self.seen.entry(address).or_insert((0, next)).0 |= 1 << process;
    }

    /// Those of the first process, then those of the second that aren't the first's, and so on; within each the ones
    /// that most others need too come first, as they're all that short commands execute.
    fn names(&self, symbols: &Symbols) -> Vec<String> {
        let mut seen: Vec<_> = self.seen.iter().collect();
        seen.sort_unstable_by_key(|(_, (processes, first))| {
            (processes.trailing_zeros(), Reverse(processes.count_ones()), *first)
        });
        seen.iter().filter_map(|(address, _)| symbols.at(**address)).map(str::to_owned).collect()
    }
}

/// A breakpoint's instruction (int3).
const BREAK: u8 = 0xcc;

/// Runs the binary with a breakpoint at each function, and the processes that it clones until they become other programs.
fn trace(binary: &Path, arguments: &[&str], symbols: &Symbols, hot: &mut Hot) -> Result<()> {
    // Stopped by itself, it waits for us before it becomes the program.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "kill -STOP $$; exec \"$0\" \"$@\""]).arg(binary).args(arguments);
    let child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("start a shell to trace")?;
    let main = Pid::from_raw(i32::try_from(child.id())?);
    waitpid(main, Some(WaitPidFlag::WUNTRACED))?;
    let options = Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(main, options).context("trace")?;
    kill(main, Signal::SIGCONT)?;
    let mut originals = BTreeMap::new();
    let mut traced = HashSet::from([main]);
    let (own, inits) = (hot.processes, hot.processes + 1);
    hot.processes += 2;
    while !traced.is_empty() {
        match waitpid(None, Some(WaitPidFlag::__WALL)).context("wait for what is traced")? {
            WaitStatus::Exited(pid, code) => {
                traced.remove(&pid);
                if pid == main {
                    ensure!(code == 0, "the traced command exited with {code}");
                    // The init of a created container waits for its start.
                    return traced.iter().try_for_each(|pid| let_go(*pid, &originals));
                }
            }
            WaitStatus::Signaled(pid, signal, _) => {
                traced.remove(&pid);
                ensure!(pid != main, "the traced command was killed by {signal}");
            }
            WaitStatus::PtraceEvent(pid, _, nix::libc::PTRACE_EVENT_EXEC) if pid == main => {
                originals = set_breakpoints(pid, symbols)?;
                ptrace::cont(pid, None)?;
            }
            // Init has become the container's program.
            WaitStatus::PtraceEvent(pid, _, nix::libc::PTRACE_EVENT_EXEC) => {
                traced.remove(&pid);
                ptrace::detach(pid, None)?;
            }
            WaitStatus::PtraceEvent(pid, ..) => {
                // A copy lacks the breakpoints that have been passed.
                if traced.insert(pid) {
                    arm(pid, &originals)?;
                }
                ptrace::cont(pid, None)?;
            }
            WaitStatus::Stopped(pid, Signal::SIGTRAP) if !originals.is_empty() => {
                hot.note(if pid == main { own } else { inits }, pass_breakpoint(pid, &originals)?);
                ptrace::cont(pid, None)?;
            }
            WaitStatus::Stopped(pid, signal) => ptrace::cont(pid, signal)?,
            _ => {}
        }
    }
    Ok(())
}

fn memory(pid: Pid) -> Result<File> {
    let path = format!("/proc/{pid}/mem");
    OpenOptions::new().read(true).write(true).open(&path).with_context(|| format!("open {path}"))
}

/// Puts a breakpoint at each function; returns what was there.
fn set_breakpoints(pid: Pid, symbols: &Symbols) -> Result<BTreeMap<u64, u8>> {
    let memory = memory(pid)?;
    let mut originals = BTreeMap::new();
    for (address, name) in &symbols.0 {
        let mut byte = [0];
        memory.read_exact_at(&mut byte, *address).with_context(|| format!("read {name}"))?;
        if byte != [BREAK] {
            memory.write_all_at(&[BREAK], *address).with_context(|| format!("set a breakpoint at {name}"))?;
            originals.insert(*address, byte[0]);
        }
    }
    Ok(originals)
}

/// Sets the breakpoints again.
fn arm(pid: Pid, originals: &BTreeMap<u64, u8>) -> Result<()> {
    let memory = memory(pid)?;
    let mut all = originals.keys();
    all.try_for_each(|address| memory.write_all_at(&[BREAK], *address)).context("set breakpoints")
}

/// Takes all breakpoints away from a process that waits for something, and ceases to trace it.
fn let_go(pid: Pid, originals: &BTreeMap<u64, u8>) -> Result<()> {
    ptrace::interrupt(pid).context("interrupt")?;
    let stopped = waitpid(pid, Some(WaitPidFlag::__WALL)).context("wait for the interrupted process")?;
    match stopped {
        WaitStatus::Stopped(pid, Signal::SIGTRAP) => drop(pass_breakpoint(pid, originals)?),
        // The program of an `exec --detach`, which has no breakpoints: `exec` doesn't wait until it is there.
        WaitStatus::PtraceEvent(pid, _, nix::libc::PTRACE_EVENT_EXEC) => {
            return ptrace::detach(pid, None).context("detach");
        }
        _ => {}
    }
    let memory = memory(pid)?;
    for (address, original) in originals {
        memory.write_all_at(&[*original], *address)?;
    }
    ptrace::detach(pid, None).context("detach")
}

/// Takes away the breakpoint at which a process has stopped, so that it goes on as if there had been none; returns where.
fn pass_breakpoint(pid: Pid, originals: &BTreeMap<u64, u8>) -> Result<u64> {
    let mut registers = ptrace::getregs(pid).context("read registers")?;
    registers.rip -= 1;
    let address = registers.rip;
    let original = originals.get(&address).with_context(|| format!("stopped at {address:#x}"))?;
    memory(pid)?.write_all_at(&[*original], address)?;
    ptrace::setregs(pid, registers).context("set registers")?;
    Ok(address)
}

/// Which member of the C library's archives a function is from: these aren't in sections of their own.
fn members() -> Result<BTreeMap<String, String>> {
    let mut members = BTreeMap::new();
    for name in ["libc.a", "libm.a", "libgcc_eh.a"] {
        let path = output(Command::new("cc").arg("-print-file-name=".to_owned() + name))?;
        let path = PathBuf::from(String::from_utf8(path)?.trim());
        let content = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        if content.starts_with(b"!<arch>") {
            members_of(&path, &mut members)?;
        } else {
            // A linker script that names archives.
            let text = String::from_utf8_lossy(&content).into_owned();
            for archive in text.split_whitespace().filter(|word| word.ends_with(".a")) {
                members_of(Path::new(archive), &mut members)?;
            }
        }
    }
    if members.is_empty() {
        bail!("the C library has no names");
    }
    Ok(members)
}

fn members_of(archive: &Path, members: &mut BTreeMap<String, String>) -> Result<()> {
    let name = archive.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // It complains about members without names.
    let listing =
        Command::new("nm").args(["-A", "--defined-only"]).arg(archive).output().context("start nm")?;
    for line in String::from_utf8_lossy(&listing.stdout).lines() {
        // libc.a:malloc.o:0000000000000a30 T malloc
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(member), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        if let [_, "t" | "T" | "w" | "W" | "i", function] = rest.split_whitespace().collect::<Vec<_>>()[..] {
            members.entry(function.to_owned()).or_insert_with(|| format!("*{name}:{member}"));
        }
    }
    Ok(())
}

/// What the compiler links to every program: its start and end.
const STARTUP: [&str; 4] = ["*crt1.o", "*crti.o", "*crtbeginT.o", "*crtend.o"];

fn script(names: &[String], members: &BTreeMap<String, String>) -> String {
    // After the rest, as what follows there is hot too: calls of functions that are chosen by processor.
    let mut text = String::from(
        "/* The functions that `corten` executes, next to each other. Written by `cargo xtask hot`; don't edit. */\n\
         SECTIONS {\n  .text.hot : {\n",
    );
    let mut written = HashSet::new();
    let startup = STARTUP.iter().map(|object| format!("{object}(.text .text.*)"));
    let functions = names.iter().map(|name| match members.get(name) {
        Some(member) => format!("{member}(.text .text.*)"),
        None => format!("*(.text.{0} .text.unlikely.{0})", pattern(name)),
    });
    for line in startup.chain(functions) {
        if written.insert(line.clone()) {
            writeln!(text, "    {line}").expect("writing to a String doesn't fail");
        }
    }
    text.push_str("  }\n} INSERT AFTER .text;\n");
    text
}

/// A mangled name with wildcards for what changes with the versions of compiler and crates: the hashes of crates
/// (`Cs4X4t9plMPHF_`), with their lengths the numbers of back references (`B1a_`), the numbers of implementations, and at the end of a generic function's
/// name the crate that it was compiled for, which is whichever used it first.
fn pattern(name: &str) -> String {
    if !name.starts_with("_R") {
        return name.to_owned();
    }
    // What link-time optimisation has made global is numbered.
    if let Some((name, number)) = name.rsplit_once('.')
        && number.bytes().all(|b| b.is_ascii_digit())
    {
        return pattern(name) + "*";
    }
    let mut pattern = String::new();
    let mut rest = name;
    while let Some(next) = rest.chars().next() {
        if let Some((kind, after)) = implementation(rest) {
            pattern.push_str(kind);
            pattern.push('*');
            rest = after;
        } else if let Some((prefix, after)) = reference(rest) {
            let crate_name = after.trim_start_matches(|c: char| c.is_ascii_digit());
            // A name doesn't end with a crate, nor with what is referred to: it's the one for which it was compiled.
            let is_last = match prefix {
                "B" => after.is_empty(),
                _ => after[..after.len() - crate_name.len()].parse() == Ok(crate_name.len()),
            };
            if is_last {
                return pattern + "*";
            }
            pattern.push_str(prefix);
            pattern.push_str("*_");
            rest = after;
        } else {
            pattern.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    pattern
}

/// An implementation's number within its module (`Xsu_` before the path, which names the type), at the beginning of a piece of a
/// mangled name: its kind, and what follows. It changes when another implementation is written before it.
fn implementation(text: &str) -> Option<(&'static str, &str)> {
    let kind = ["Xs", "Ms"].into_iter().find(|kind| text.starts_with(kind))?;
    let rest = &text[kind.len()..];
    let digits = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
    let path = rest[digits..].strip_prefix('_').filter(|path| path.starts_with(['N', 'I', 'C', 'B']))?;
    (digits <= 2).then_some((&kind[..1], path))
}

/// A crate's hash or a back reference at the beginning of a piece of a mangled name: how it begins, and what follows.
fn reference(text: &str) -> Option<(&'static str, &str)> {
    let prefix = ["Cs", "B"].into_iter().find(|prefix| text.starts_with(prefix))?;
    let rest = &text[prefix.len()..];
    let digits = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
    let is_number = if prefix == "Cs" { (8..=13).contains(&digits) } else { digits <= 4 };
    Some((prefix, rest[digits..].strip_prefix('_')?)).filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use super::{Hot, Symbols, pattern};

    #[test]
    fn the_first_process_has_its_functions_together() {
        let symbols = Symbols((0..).zip(["a", "b", "c", "d", "e"].map(str::to_owned)).collect());
        let mut hot = Hot::default();
        for (process, address) in [(0, 4), (1, 0), (0, 1), (2, 2), (0, 3), (2, 3), (1, 3), (2, 0)] {
            hot.note(process, address);
        }
        // d is everybody's; e and b are the first's alone; a is the second's and the third's, c the third's.
        assert_eq!(hot.names(&symbols), ["d", "e", "b", "a", "c"]);
    }

    #[test]
    fn versions_become_wildcards() {
        for (name, expected) in [
            ("_RNvCslCIAqueYAw2_1h4main", "_RNvCs*_1h4main"),
            (
                "_RNCNCNvNtCsjrHSEGnQ3l9_3std2rt19lang_start_internal00s_0B9_",
                "_RNCNCNvNtCs*_3std2rt19lang_start_internal00s_0*",
            ),
            // The crate for which a generic function was compiled, spelled out.
            (
                "_RINvNtCs8r9akEFPa4a_4core3ptr13drop_in_placeNtNtCs8r9akEFPa4a_5alloc6string6StringECs4X4t9plMPHF_6corten",
                "_RINvNtCs*_4core3ptr13drop_in_placeNtNtCs*_5alloc6string6StringE*",
            ),
            ("_RNvMs_NtCs4X4t9plMPHF_6corten3boxB2_", "_RNvM*NtCs*_6corten3box*"),
            (
                "_RNvXsu_NtCs4X4t9plMPHF_6corten4argsNtB5_6CreateNtNtCs28cvqVnuaOM_12clap_builder6derive4Args3new",
                "_RNvX*NtCs*_6corten4argsNtB*_6CreateNtNtCs*_12clap_builder6derive4Args3new",
            ),
            // A name that looks like a reference is widened too: it then finds a little more than it should.
            ("_RNvMs_NtCs4X4t9plMPHF_6corten3Box_1f", "_RNvM*NtCs*_6corten3B*_1f"),
            (
                "_RNvMs5_NtNtCs4X4t9plMPHF_3std2io5errorNtB5_5Error4kind.1035",
                "_RNvM*NtNtCs*_3std2io5errorNtB*_5Error4kind*",
            ),
            ("main", "main"),
            ("Csabcdefgh_", "Csabcdefgh_"),
        ] {
            assert_eq!(pattern(name), expected);
        }
    }
}
