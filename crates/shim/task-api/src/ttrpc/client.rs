//! The client: any number of calls at once over one connection.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};

use super::codec::{Frame, FrameError, Kind, MAX_MESSAGE, read_frame, write_frame};
use super::status::{Code, Status};
use crate::proto::ttrpc::{Request, Response};

type Waiting = HashMap<u32, oneshot::Sender<Result<Vec<u8>, Status>>>;

/// A connection to a ttrpc server. Clones share it; it closes when the last is dropped.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    next: AtomicU32,
    /// None once the connection is lost.
    waiting: Arc<Mutex<Option<Waiting>>>,
    outgoing: mpsc::UnboundedSender<Frame>,
    closed: watch::Receiver<bool>,
    reader: tokio::task::AbortHandle,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Ends when a connection is lost, see [`Client::closed`].
#[derive(Clone, Debug)]
pub struct Closed(watch::Receiver<bool>);

impl Closed {
    /// Waits for it.
    pub async fn wait(mut self) {
        let _ = self.0.wait_for(|closed| *closed).await; // a dropped sender means the same
    }
}

impl Client {
    /// Connects to a unix socket.
    ///
    /// # Errors
    /// What connecting says.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        Ok(Self::new(UnixStream::connect(path).await?))
    }

    /// Takes over a connection. Must be called within a tokio runtime.
    #[must_use]
    pub fn new(connection: UnixStream) -> Self {
        let (reader, writer) = connection.into_split();
        let waiting = Arc::new(Mutex::new(Some(Waiting::new())));
        let (outgoing, queue) = mpsc::unbounded_channel();
        let (closing, closed) = watch::channel(false);
        let writing = tokio::spawn(send(writer, queue)).abort_handle();
        let pending = Arc::clone(&waiting);
        let reading = tokio::spawn(async move {
            receive(reader, &pending).await;
            // Whoever still waits learns it by its dropped sender.
            drop(lock(&pending).take());
            writing.abort();
            let _ = closing.send(true); // nobody may be interested
        });
        Self {
            shared: Arc::new(Shared {
                next: AtomicU32::new(1),
                waiting,
                outgoing,
                closed,
                reader: reading.abort_handle(),
            }),
        }
    }

    /// When the connection is lost: the server has died or has closed it.
    #[must_use]
    pub fn closed(&self) -> Closed {
        Closed(self.shared.closed.clone())
    }

    /// Calls a method and waits for its answer, for ever without `timeout`. Dropping the future gives the answer up;
    /// the server goes on.
    ///
    /// # Errors
    /// The server's status; Unavailable when the connection is lost; DeadlineExceeded after `timeout`.
    pub async fn call<A: Message + Default>(
        &self,
        service: &str,
        method: &str,
        request: &impl Message,
        timeout: Option<Duration>,
    ) -> Result<A, Status> {
        let nanos = timeout.map_or(0, |t| i64::try_from(t.as_nanos()).unwrap_or(i64::MAX));
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload: request.encode_to_vec(),
            timeout_nano: nanos,
            metadata: Vec::new(),
        };
        let data = request.encode_to_vec();
        if data.len() > MAX_MESSAGE {
            let why = format!("{method}: the request is longer than {MAX_MESSAGE} bytes");
            return Err(Status::new(Code::ResourceExhausted, why));
        }
        let payload = self.exchange(method, data, timeout).await?;
        A::decode(payload.as_slice())
            .map_err(|e| Status::new(Code::Internal, format!("{method}: decode the answer: {e}")))
    }

    async fn exchange(
        &self,
        method: &str,
        data: Vec<u8>,
        timeout: Option<Duration>,
    ) -> Result<Vec<u8>, Status> {
        let lost = || Status::new(Code::Unavailable, format!("{method}: the connection is lost"));
        let stream = self.shared.next.fetch_add(2, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        lock(&self.shared.waiting).as_mut().ok_or_else(lost)?.insert(stream, sender);
        // Takes the entry out again when this future is dropped or times out.
        let _forget = Forget { shared: &self.shared, stream };
        self.shared.outgoing.send(Frame { stream, kind: Kind::Request, data }).map_err(|_| lost())?;
        match timeout {
            None => answer.await.map_err(|_| lost())?,
            Some(timeout) => tokio::time::timeout(timeout, answer)
                .await
                .map_err(|_| {
                    Status::new(Code::DeadlineExceeded, format!("{method}: no answer in {timeout:?}"))
                })?
                .map_err(|_| lost())?,
        }
    }
}

struct Forget<'a> {
    shared: &'a Shared,
    stream: u32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = lock(&self.shared.waiting).as_mut() {
            waiting.remove(&self.stream);
        }
    }
}

/// A panic while holding the lock leaves the map whole: each use is one operation.
fn lock(waiting: &Mutex<Option<Waiting>>) -> MutexGuard<'_, Option<Waiting>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn receive(mut reader: OwnedReadHalf, waiting: &Mutex<Option<Waiting>>) {
    loop {
        let (stream, result) = match read_frame(&mut reader).await {
            Ok(Some(frame)) if frame.kind == Kind::Response => (frame.stream, open(&frame.data)),
            Ok(Some(_)) => continue, // not for us
            Err(FrameError::TooLong { stream, length, .. }) => {
                let why = format!("the answer is {length} bytes long, {MAX_MESSAGE} are allowed");
                (stream, Err(Status::new(Code::ResourceExhausted, why)))
            }
            Ok(None) | Err(FrameError::Io(_)) => return,
        };
        let sender = lock(waiting).as_mut().and_then(|w| w.remove(&stream));
        if let Some(sender) = sender {
            let _ = sender.send(result); // the caller may have given up
        }
    }
}

fn open(data: &[u8]) -> Result<Vec<u8>, Status> {
    let response = Response::decode(data)
        .map_err(|e| Status::new(Code::Internal, format!("decode the response: {e}")))?;
    match response.status {
        Some(status) if status.code != 0 => Err(Status::from_wire(status)),
        _ => Ok(response.payload),
    }
}

async fn send(mut writer: OwnedWriteHalf, mut queue: mpsc::UnboundedReceiver<Frame>) {
    while let Some(frame) = queue.recv().await {
        if write_frame(&mut writer, &frame).await.is_err() {
            return; // the reader sees the end too
        }
    }
}
