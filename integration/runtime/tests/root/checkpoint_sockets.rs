//! Locks and connections of a container that is checkpointed: each has a flag without which it is refused, and with
//! which it is there again afterwards, or is known to be gone.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixListener};

use anyhow::{Context as _, Result, ensure};
use integration_support::{DEADLINE, wait_for, wait_until};
use nix::fcntl::{Flock, FlockArg};

use super::checkpoint::{COUNT, Counter, works};
use crate::{T, has_one};

crate::each_runtime!(@one corten Corten
    file_locks tcp_established tcp_close tcp_skip_in_flight ext_unix_sk a_stream_to_outside_cannot_be_saved
);

/// A container on the host's network in which `/bin/workload WHAT` is at work, and has said `ready`.
fn start<'a>(t: &'a T<'a>, what: &str, ready: &str) -> Result<Counter<'a>> {
    let script = format!("/bin/workload {what} > /tmp/said 2>&1 & {COUNT}");
    let dir = t.scope.make_dir("outside")?;
    // criu connects to sockets by the path that they were bound to, outside: it has to be the same inside.
    let dir = dir.to_string_lossy();
    let bundle = t.sh(&script).namespace("network", None).mount("bind", &dir, &dir, &["bind"]);
    let counter = Counter::start(t, bundle)?;
    if let Err(e) = wait_for("the workload", || said(&counter).is_ok_and(|said| said.contains(ready))) {
        return Err(e.context(format!("it said: {}", said(&counter)?)));
    }
    Ok(counter)
}

fn said(counter: &Counter<'_>) -> Result<String> {
    Ok(fs::read_to_string(counter.bundle.rootfs().join("tmp/said"))?)
}

/// A checkpoint without the flag is refused for `why`, which leaves the container running.
fn refused(t: &T<'_>, counter: &Counter<'_>, flags: &[&str], why: &[&str]) -> Result<()> {
    let images = t.scope.path("refused");
    let images = images.to_string_lossy();
    let refused = counter.call(&[&["checkpoint", "--image-path", &images], flags].concat())?.err()?;
    has_one(&refused.stderr, why)?;
    ensure!(counter.status()? == "running");
    counter.counts_on()
}

fn checkpoint(t: &T<'_>, counter: &Counter<'_>, flags: &[&str]) -> Result<()> {
    let images = t.scope.path("images");
    let images = images.to_string_lossy();
    counter.call(&[&["checkpoint", "--image-path", &images], flags].concat())?.ok().map(drop)
}

fn restore(t: &T<'_>, counter: &Counter<'_>, flags: &[&str]) -> Result<()> {
    let images = t.scope.path("images");
    let images = images.to_string_lossy();
    counter.detached(&[&["restore", "--image-path", &images], flags].concat())?;
    counter.counts_on()
}

fn file_locks(t: &T<'_>) -> Result<()> {
    if !works()? {
        return Ok(());
    }
    let counter = start(t, "lock /tmp/lock", "locked")?;
    let is_locked = || -> Result<bool> {
        let file = File::open(counter.bundle.rootfs().join("tmp/lock"))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(_free) => Ok(false),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(true),
            Err((_, errno)) => Err(errno.into()),
        }
    };
    ensure!(is_locked()?);
    refused(t, &counter, &[], &["--file-locks"])?;
    checkpoint(t, &counter, &["--file-locks"])?;
    ensure!(!is_locked()?, "who has it?");
    restore(t, &counter, &["--file-locks"])?;
    ensure!(is_locked()?, "the lock is gone");
    counter.delete()
}

/// Both ends of a connection, the other one being the container's.
struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    fn ask(&mut self, text: &str) -> Result<String> {
        writeln!(self.reader.get_mut(), "{text}")?;
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        Ok(line)
    }
}

fn connected<'a>(t: &'a T<'a>) -> Result<(Counter<'a>, Connection)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let counter = start(t, &format!("answer {}", listener.local_addr()?), "connected")?;
    let (stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let mut connection = Connection { reader: BufReader::new(stream) };
    ensure!(connection.ask("hello")? == "got: hello\n");
    Ok((counter, connection))
}

fn tcp_established(t: &T<'_>) -> Result<()> {
    if !works()? {
        return Ok(());
    }
    let (counter, mut connection) = connected(t)?;
    refused(t, &counter, &[], &["--tcp-established"])?;
    ensure!(connection.ask("still there")? == "got: still there\n");
    checkpoint(t, &counter, &["--tcp-established"])?;
    restore(t, &counter, &["--tcp-established"])?;
    ensure!(connection.ask("again")? == "got: again\n");
    ensure!(!said(&counter)?.contains("ended"));
    counter.delete()
}

fn tcp_close(t: &T<'_>) -> Result<()> {
    if !works()? {
        return Ok(());
    }
    let (counter, _connection) = connected(t)?;
    checkpoint(t, &counter, &["--tcp-established"])?;
    restore(t, &counter, &["--tcp-close"])?;
    wait_for("the container to notice", || said(&counter).is_ok_and(|said| said.contains("ended")))?;
    counter.delete()
}

fn tcp_skip_in_flight(t: &T<'_>) -> Result<()> {
    if !works()? {
        return Ok(());
    }
    let port = super::checkpoint_flags::port()?;
    let counter = start(t, &format!("backlog {port}"), "listening")?;
    // Nobody has accepted it.
    let waiting = TcpStream::connect(("127.0.0.1", port))?;
    refused(t, &counter, &[], &["In-flight connection"])?;
    checkpoint(t, &counter, &["--tcp-skip-in-flight"])?;
    drop(waiting);
    restore(t, &counter, &[])?;
    TcpStream::connect(("127.0.0.1", port)).context("nobody listens any more")?;
    counter.delete()
}

fn ext_unix_sk(t: &T<'_>) -> Result<()> {
    if !works()? {
        return Ok(());
    }
    let path = t.scope.make_dir("outside")?.join("log");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(DEADLINE))?;
    let receive = || -> Result<u64> {
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer)?;
        Ok(std::str::from_utf8(&buffer[..length])?.parse()?)
    };
    let counter = start(t, &format!("datagrams {}", path.display()), "")?;
    receive()?;
    refused(t, &counter, &[], &["--ext-unix-sk"])?;
    checkpoint(t, &counter, &["--ext-unix-sk"])?;
    // What was sent before is still in the queue, up to the last.
    socket.set_nonblocking(true)?;
    let mut last = 0;
    while let Ok(count) = receive() {
        last = count;
    }
    restore(t, &counter, &["--ext-unix-sk"])?;
    let next = wait_until("the next number", DEADLINE, || Ok(receive().ok()))?;
    ensure!(next == last + 1, "{next} after {last}: it isn't the same process");
    counter.delete()
}

/// criu saves both ends of a stream or none.
fn a_stream_to_outside_cannot_be_saved(t: &T<'_>) -> Result<()> {
    if !works()? {
        return Ok(());
    }
    let path = t.scope.make_dir("outside")?.join("stream");
    let listener = UnixListener::bind(&path)?;
    let counter = start(t, &format!("stream {}", path.display()), "connected")?;
    let (_stream, _) = listener.accept()?;
    refused(t, &counter, &["--ext-unix-sk"], &["half of stream unix connection"])?;
    counter.delete()
}
