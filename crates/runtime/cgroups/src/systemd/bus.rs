//! A connection to a message bus, as much of one as it takes to talk to systemd: calls, one after the other, and the
//! signals that come in between. Everything has a deadline.
//!
//! A client of our own: docs/decisions/0010-dbus.md.

use std::{
    collections::VecDeque,
    env, fs,
    io::{self, Read as _, Write as _},
    os::linux::net::SocketAddrExt as _,
    os::unix::net::{SocketAddr, UnixStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::sys::{
    socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt},
    time::{TimeVal, TimeValLike as _},
};

use super::{
    Manager,
    message::{self, Kind, Message, Method},
    value::Value,
};
use crate::{Error, Result};

/// How long connecting may take, and a call. systemd answers in milliseconds, unless it is swamped.
const PATIENCE: Duration = Duration::from_secs(25);

const SYSTEM: &str = "unix:path=/run/dbus/system_bus_socket";
/// systemd's own socket, for root: where there is no message bus.
const PRIVATE: &str = "/run/systemd/private";

/// A connection.
#[derive(Debug)]
pub(crate) struct Bus {
    stream: UnixStream,
    serial: u32,
    received: Vec<u8>,
    signals: VecDeque<Message>,
    /// There is a bus in between, which has to be told what we want to hear.
    on_bus: bool,
}

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error is the answer: its name and text.
    Refused { name: String, text: String },
    /// There is no answer.
    Io(io::Error),
}

impl Bus {
    /// Connects; goes on trying while the bus has too much to do to take us.
    ///
    /// # Errors
    /// [`Error::Bus`].
    pub(crate) fn connect(manager: Manager) -> Result<Self> {
        let address = address(manager);
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(10);
        loop {
            let error = match Self::try_connect(manager, &address) {
                Ok(bus) => return Ok(bus),
                Err(error) => error,
            };
            if !is_temporary(&error) || Instant::now() + pause > deadline {
                return Err(Error::Bus { address, source: error });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    fn try_connect(manager: Manager, address: &str) -> io::Result<Self> {
        match open(address) {
            Ok(stream) => Self::begin(stream, true),
            Err(error) if manager == Manager::System && no_such_bus(&error) => {
                // Nobody but root can; then the first reason is the better one to tell.
                let private = SocketAddr::from_pathname(PRIVATE).and_then(|private| dial(&private));
                private.map_or(Err(error), |stream| Self::begin(stream, false))
            }
            Err(error) => Err(error),
        }
    }

    /// Says who we are: the bus takes the user id from the socket, so that it's right in user namespaces too.
    fn begin(mut stream: UnixStream, on_bus: bool) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        let mut bus = Self { stream, serial: 0, received: Vec::new(), signals: VecDeque::new(), on_bus };
        for expected in ["DATA", "OK"] {
            let line = bus.line()?;
            if !line.starts_with(expected) {
                return Err(io::Error::other(format!("it doesn't accept us: {line:?}")));
            }
        }
        if on_bus {
            bus.call(BUS.method("Hello"), &[]).map_err(|failure| match failure {
                // As when there are too many of us already.
                Failure::Refused { name, text } if name.ends_with(".LimitsExceeded") => {
                    io::Error::new(io::ErrorKind::WouldBlock, text)
                }
                Failure::Refused { text, .. } => io::Error::other(text),
                Failure::Io(error) => error,
            })?;
        }
        Ok(bus)
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.received.windows(2).position(|two| two == b"\r\n") {
                let line = self.received.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).map_err(io::Error::other);
            }
            self.receive(PATIENCE)?;
        }
    }

    fn receive(&mut self, patience: Duration) -> io::Result<()> {
        // Zero would mean for ever.
        self.stream.set_read_timeout(Some(patience.max(Duration::from_millis(1))))?;
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "it has closed the connection")),
            Ok(count) => {
                self.received.extend(chunk.iter().take(count));
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "it doesn't answer"))
            }
            Err(error) => Err(error),
        }
    }

    /// The next message, before `deadline`.
    fn next(&mut self, deadline: Instant) -> io::Result<Message> {
        loop {
            match message::parse(&self.received) {
                Ok(Some((message, length))) => {
                    self.received.drain(..length);
                    return Ok(message);
                }
                Ok(None) => {}
                Err(message::Damaged) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "its message is damaged"));
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it doesn't answer"));
            }
            self.receive(left)?;
        }
    }

    /// Calls a method and waits for the answer.
    pub(crate) fn call(&mut self, method: Method<'_>, arguments: &[Value]) -> Result<Vec<Value>, Failure> {
        self.serial += 1;
        let serial = self.serial;
        self.stream.write_all(&message::call(serial, method, arguments)).map_err(Failure::Io)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self.next(deadline).map_err(Failure::Io)?;
            match message.kind {
                Kind::Return(to) if to == serial => return Ok(message.arguments),
                Kind::Error(to, name) if to == serial => {
                    let text = message.arguments.first().and_then(Value::as_str).unwrap_or(&name).to_owned();
                    return Err(Failure::Refused { name, text });
                }
                Kind::Signal(_) => self.signals.push_back(message),
                _ => {}
            }
        }
    }

    /// The next signal, of those that we've asked for.
    pub(crate) fn signal(&mut self, deadline: Instant) -> io::Result<Message> {
        if let Some(message) = self.signals.pop_front() {
            return Ok(message);
        }
        loop {
            let message = self.next(deadline)?;
            if matches!(message.kind, Kind::Signal(_)) {
                return Ok(message);
            }
        }
    }

    /// Asks the bus for signals.
    pub(crate) fn add_match(&mut self, rule: &str) -> Result<(), Failure> {
        if !self.on_bus {
            return Ok(());
        }
        self.call(BUS.method("AddMatch"), &[Value::string(rule)]).map(drop)
    }
}

/// Where methods are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Object {
    pub(crate) destination: &'static str,
    pub(crate) path: &'static str,
    pub(crate) interface: &'static str,
}

impl Object {
    /// One of its methods.
    pub(crate) fn method(self, member: &'static str) -> Method<'static> {
        let Self { destination, path, interface } = self;
        Method { destination, path, interface, member }
    }
}

const BUS: Object = Object {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};

fn address(manager: Manager) -> String {
    let given = |name| env::var(name).ok().filter(|value| !value.is_empty());
    match manager {
        Manager::System => given("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_else(|| SYSTEM.to_owned()),
        Manager::User => given("DBUS_SESSION_BUS_ADDRESS").unwrap_or_else(|| {
            let runtime = given("XDG_RUNTIME_DIR");
            let runtime = runtime.unwrap_or_else(|| format!("/run/user/{}", nix::unistd::getuid()));
            format!("unix:path={runtime}/bus")
        }),
    }
}

/// Connects to the first that works of a list of addresses (D-Bus specification, "Server Addresses").
fn open(addresses: &str) -> io::Result<UnixStream> {
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "there is no address of a unix socket in it");
    for address in addresses.split(';').filter_map(|address| address.strip_prefix("unix:")) {
        for (key, value) in address.split(',').filter_map(|pair| pair.split_once('=')) {
            let value = unescape(value);
            let address = match key {
                "path" => SocketAddr::from_pathname(&value),
                "abstract" => SocketAddr::from_abstract_name(&value),
                _ => continue,
            };
            match address.and_then(|address| dial(&address)) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

fn unescape(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = (*first == b'%').then(|| after.get(..2)).flatten();
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        rest = if byte.is_some() { after.get(2..).unwrap_or_default() } else { after };
        bytes.push(byte.unwrap_or(*first));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Connects, but waits for a place in a queue that is full for a while only.
fn dial(address: &SocketAddr) -> io::Result<UnixStream> {
    let address = match (address.as_pathname(), address.as_abstract_name()) {
        (Some(path), _) => UnixAddr::new(path)?,
        (None, name) => UnixAddr::new_abstract(name.unwrap_or_default())?,
    };
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::SendTimeout, &TimeVal::seconds(1))?;
    connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &address)?;
    Ok(UnixStream::from(fd))
}

/// What another attempt may overcome: a full queue (EAGAIN), a bus at its limits, one that hung up on us for that.
fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

fn no_such_bus(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Whether systemd is PID 1 here (sd_booted(3)).
pub(crate) fn booted() -> bool {
    fs::symlink_metadata(Path::new("/run/systemd/system")).is_ok_and(|found| found.is_dir())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(unescape("/run/user%2f5%"), "/run/user/5%");
        assert_eq!(open("tcp:host=x").expect_err("no unix socket").kind(), io::ErrorKind::InvalidInput);
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("bus");
        let _listener = UnixListener::bind(&path).expect("socket");
        open(&format!("unix:path=/nowhere;unix:path={},guid=5", path.display())).expect("the second works");
    }

    /// A bus that takes everybody, and answers each call with what it is told to.
    fn serve(listener: &UnixListener, answers: &[&[u8]]) {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut seen = Vec::new();
        let mut chunk = [0; 4096];
        while !seen.ends_with(b"BEGIN\r\n") {
            let count = stream.read(&mut chunk).expect("greeting");
            seen.extend(&chunk[..count]);
        }
        assert_eq!(seen, b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n");
        stream.write_all(b"DATA\r\nOK 0123\r\n").expect("welcome");
        for answer in answers {
            stream.read(&mut chunk).map(drop).expect("call");
            stream.write_all(answer).expect("answer");
        }
    }

    #[test]
    fn a_damaged_answer_is_an_error_and_so_is_none() {
        for (answer, kind) in [
            (&b"garbage that is no message"[..], io::ErrorKind::InvalidData),
            (b"", io::ErrorKind::ConnectionAborted),
        ] {
            let dir = tempfile::tempdir().expect("directory");
            let path = dir.path().join("bus");
            let listener = UnixListener::bind(&path).expect("socket");
            thread::scope(|scope| {
                scope.spawn(|| serve(&listener, &[answer]));
                let stream = UnixStream::connect(&path).expect("connect");
                assert_eq!(Bus::begin(stream, true).expect_err("no answer").kind(), kind);
            });
        }
    }
}
