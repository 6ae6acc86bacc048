//! Terminals: getting the master from the runtime, copying between it and the client.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use corten_task_api::ttrpc::{Code, Status};
use nix::errno::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;

use super::ProcessIo;
use super::log::{set_nonblocking, watch_fd};
use super::open::{OPEN, append, both_ends, is_fifo, open_aside, reading_end};
use super::uri::Uri;
use super::writer::{Target, Writer};
use crate::error;

const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);
/// The runtime sends the master before it ends, so it is there when we look.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a runtime sends a terminal's master.
#[derive(Debug)]
pub(super) struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // nothing can be done about it
    }
}

impl ConsoleSocket {
    pub(super) fn bind(dir: &Path) -> Result<Self, Status> {
        thread_local!(static NEXT: Cell<u64> = const { Cell::new(0) });
        let number = NEXT.replace(NEXT.get() + 1);
        let path = dir.join(format!("{}-{number}.pty", std::process::id()));
        let failed = |e| error::io(format!("bind the console socket {}", path.display()), &e);
        std::fs::DirBuilder::new().recursive(true).mode(0o711).create(dir).map_err(failed)?;
        let listener = UnixListener::bind(&path).map_err(failed)?;
        Ok(Self { listener, path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) async fn receive(&self) -> Result<OwnedFd, Status> {
        let received = async {
            let (socket, _) = self.listener.accept().await?;
            socket
                .async_io(Interest::READABLE, || corten_sys::fds::receive(socket.as_fd(), &mut [0; 512]))
                .await
        };
        let (_, fds) = tokio::time::timeout(PATIENCE, received)
            .await
            .map_err(|_| Status::new(Code::Internal, "the runtime has sent no terminal"))?
            .map_err(|e| error::io("receive the terminal", &e))?;
        fds.into_iter().next().ok_or_else(|| Status::new(Code::Internal, "the runtime has sent no terminal"))
    }
}

/// A terminal's master.
#[derive(Debug)]
pub(super) struct Console {
    master: AsyncFd<OwnedFd>,
}

impl Console {
    pub(super) fn new(master: OwnedFd) -> Result<Self, Status> {
        let watched = set_nonblocking(&master).and_then(|()| watch_fd(master, BOTH));
        Ok(Self { master: watched.map_err(|e| error::io("watch the terminal", &e))? })
    }

    pub(super) fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        corten_sys::pty::set_size(self.master.as_fd(), rows, columns)
    }
}

impl ProcessIo {
    pub(super) async fn connect(
        &self,
        console: &Rc<Console>,
        stdin: &Uri,
        stdout: &Uri,
    ) -> Result<(), Status> {
        *self.console.borrow_mut() = Some(Rc::clone(console));
        let watch = |e| error::io("copy the terminal", &e);
        if let Uri::Fifo(path) = stdin {
            // The copier sees the end when this has been dropped and the client has closed: what was typed comes first.
            *self.stdin.borrow_mut() = Some(both_ends(path).map_err(watch)?);
            let fifo = reading_end(path).and_then(|fifo| watch_fd(fifo.into(), Interest::READABLE));
            let fifo = fifo.map_err(watch)?;
            let console = Rc::clone(console);
            let copier = tokio::task::spawn_local(async move { copy(&fifo, &console.master).await });
            *self.stdin_copier.borrow_mut() = Some(copier.abort_handle());
        }
        if let (Uri::Cri { .. }, Some(log)) = (stdout, &self.log) {
            let source = console.master.as_fd().try_clone_to_owned().map_err(watch)?;
            let stream = super::log::Stream::new(source, "stdout", Rc::clone(log)).map_err(watch)?;
            self.streams.borrow_mut().push(Rc::clone(&stream));
            self.copiers.borrow_mut().push(tokio::task::spawn_local(stream.run()).abort_handle());
            return Ok(());
        }
        let ends = self.logger.borrow_mut().as_mut().and_then(super::binary::Logger::take_ends);
        let sink = match ends {
            // A terminal has one stream: the logger's other one ends at once.
            Some((output, _)) => set_nonblocking(&output)
                .and_then(|()| watch_fd(output, Interest::WRITABLE))
                .map(Sink::Fifo)
                .map_err(watch)?,
            None => sink(stdout).await?,
        };
        let console = Rc::clone(console);
        let copier = tokio::task::spawn_local(async move {
            match sink {
                Sink::Fifo(fifo) => copy(&console.master, &fifo).await,
                Sink::File(file) => write_to(&console.master, &file).await,
            }
        });
        *self.console_copier.borrow_mut() = Some(copier);
        Ok(())
    }
}

enum Sink {
    Fifo(AsyncFd<OwnedFd>),
    File(Output),
}

/// A file that a terminal alone writes to.
struct Output {
    /// There is one until this is dropped.
    target: Option<Arc<Target>>,
    path: PathBuf,
    writer: Writer,
}

impl Drop for Output {
    fn drop(&mut self) {
        // Its file system may hang by now.
        if let Some(target) = self.target.take() {
            self.writer.close(target);
        }
    }
}

async fn sink(uri: &Uri) -> Result<Sink, Status> {
    let path = match uri {
        Uri::Fifo(path) if is_fifo(path) => {
            let fifo = both_ends(path).and_then(|fifo| watch_fd(fifo.into(), BOTH));
            return fifo.map(Sink::Fifo).map_err(|e| error::io("copy the terminal", &e));
        }
        Uri::Fifo(path) | Uri::File(path) | Uri::Cri { path, .. } => path.as_path(),
        Uri::Null | Uri::Binary(_) => Path::new("/dev/null"),
    };
    let file = open_aside("open stdout", path, OPEN, append).await?;
    let target = Some(Target::new(path, file));
    Ok(Sink::File(Output { target, path: path.to_owned(), writer: Writer::default() }))
}

async fn read(from: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> io::Result<usize> {
    from.async_io(Interest::READABLE, |fd| nix::unistd::read(fd, buffer).map_err(Errno::into)).await
}

/// Copies until either side ends.
async fn copy(from: &AsyncFd<OwnedFd>, to: &AsyncFd<OwnedFd>) {
    let mut buffer = [0; 1024];
    while let Ok(n @ 1..) = read(from, &mut buffer).await {
        let mut rest = &buffer[..n];
        while !rest.is_empty() {
            let written =
                to.async_io(Interest::WRITABLE, |fd| nix::unistd::write(fd, rest).map_err(Errno::into)).await;
            match written {
                Ok(n) => rest = &rest[n..],
                Err(_) => return,
            }
        }
    }
}

async fn write_to(from: &AsyncFd<OwnedFd>, file: &Output) {
    let Some(target) = &file.target else { return };
    let mut buffer = [0; 1024];
    while let Ok(n @ 1..) = read(from, &mut buffer).await {
        // A full disk doesn't stop the container, one that hangs does.
        file.writer.push(Arc::clone(target), buffer[..n].to_vec());
        file.writer.room().await;
    }
    file.writer.settle(&file.path).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{setsockopt, sockopt};
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn who_shows_a_terminal_does_not_close_its_file() {
        // As a file on NFS does it: close waits until the other side has what was written.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut file = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        file.set_nonblocking(true).unwrap();
        while file.write(&[0; 65536]).is_ok() {}
        file.set_nonblocking(false).unwrap();
        let linger = nix::libc::linger { l_onoff: 1, l_linger: 600 };
        setsockopt(&file, sockopt::Linger, &linger).unwrap();
        let path = PathBuf::from("/file");
        let target = Some(Target::new(&path, OwnedFd::from(file).into()));
        let output = Output { target, path, writer: Writer::default() };
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            drop(output);
            done.send(()).unwrap();
        });
        let ended = ended.recv_timeout(Duration::from_secs(60));
        server.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(ended, Ok(()));
    }
}
