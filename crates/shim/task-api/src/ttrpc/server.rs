//! The server: many connections on one thread.
//!
//! Each request becomes a task of its own, so a slow one stalls nobody. A request whose client goes away runs on to
//! its end (half a create helps no one), except where the handler itself asks [`Call::gone`].

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use prost::Message;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{Notify, mpsc, watch};

use super::codec::{Frame, FrameError, HEADER, Kind, MAX_MESSAGE, read_frame, write_frame};
use super::status::{Code, Status};
use crate::proto::ttrpc::{Request, Response};

/// Bytes of requests at work for one connection; more are refused.
const MAX_AT_WORK: usize = 64 << 20;
/// What a request costs besides its bytes, about: else empty ones would be free.
const OVERHEAD: usize = 4096;
/// Bytes of answers that wait for a client to read them; with more it is cut off.
const MAX_UNREAD: usize = 64 << 20;

/// What a connection holds of our memory.
#[derive(Debug, Default)]
struct Held {
    at_work: Cell<usize>,
    unread: Cell<usize>,
    /// Told when too much is unread.
    too_much: Notify,
}

/// Where the answers of one connection go.
#[derive(Clone, Debug)]
struct Answers {
    queue: mpsc::UnboundedSender<Frame>,
    held: Rc<Held>,
}

impl Answers {
    fn send(&self, frame: Frame) {
        let unread = &self.held.unread;
        unread.set(unread.get() + frame.data.len() + HEADER);
        if unread.get() > MAX_UNREAD {
            self.held.too_much.notify_one();
        }
        let _ = self.queue.send(frame); // the client may have gone: then nobody waits for it
    }

    fn refuse(&self, stream: u32, status: Status) {
        self.send(answer(stream, Err(status)));
    }
}

/// One request, as a handler sees it.
#[derive(Clone, Debug)]
pub struct Call {
    /// Full name of the service.
    pub service: String,
    /// Name of the method.
    pub method: String,
    /// How long the client waits.
    pub timeout: Option<Duration>,
    payload: Vec<u8>,
    gone: watch::Receiver<()>,
}

impl Call {
    /// The request's message.
    ///
    /// # Errors
    /// InvalidArgument when it isn't one.
    pub fn message<M: Message + Default>(&self) -> Result<M, Status> {
        M::decode(self.payload.as_slice()).map_err(|e| {
            Status::new(
                Code::InvalidArgument,
                format!("{}.{}: decode the request: {e}", self.service, self.method),
            )
        })
    }

    /// Ends when the client has gone away or has ceased to wait.
    pub async fn gone(&self) {
        let mut gone = self.gone.clone();
        // Nothing is ever sent: the error that the sender is dropped is the event.
        let disconnected = async { while gone.changed().await.is_ok() {} };
        match self.timeout {
            Some(timeout) => {
                let _ = tokio::time::timeout(timeout, disconnected).await;
            }
            None => disconnected.await,
        }
    }

    /// The answer when no method has that name.
    #[must_use]
    pub fn unimplemented(&self) -> Status {
        Status::new(Code::Unimplemented, format!("no method {} in service {}", self.method, self.service))
    }
}

/// Finds the handler for a request.
pub trait Router: 'static {
    /// Answers a call with an encoded message (see [`respond`]).
    fn call(self: Rc<Self>, call: Call) -> impl Future<Output = Result<Vec<u8>, Status>>;
}

/// Runs a handler that takes and returns messages.
///
/// # Errors
/// The handler's, or InvalidArgument when the request can't be decoded.
pub async fn respond<Q, A, F>(call: &Call, handler: impl FnOnce(Q) -> F) -> Result<Vec<u8>, Status>
where
    Q: Message + Default,
    A: Message,
    F: Future<Output = Result<A, Status>>,
{
    let request = call.message()?;
    Ok(handler(request).await?.encode_to_vec())
}

/// Serves connections. Lives in a `LocalSet`.
#[derive(Debug)]
pub struct Server<R> {
    router: Rc<R>,
}

impl<R: Router> Server<R> {
    /// A server that hands requests to `router`.
    #[must_use]
    pub fn new(router: Rc<R>) -> Self {
        Self { router }
    }

    /// Serves one connection until the client closes it or breaks the protocol.
    ///
    /// # Errors
    /// The connection broke, in the middle of a frame or while sending.
    pub async fn serve(&self, connection: UnixStream) -> io::Result<()> {
        let (mut reader, writer) = connection.into_split();
        let (queue, unsent) = mpsc::unbounded_channel();
        let answers = Answers { queue, held: Rc::default() };
        let writing = tokio::task::spawn_local(send(writer, unsent, Rc::clone(&answers.held)));
        let (_alive, gone) = watch::channel(());
        let ended = loop {
            let frame = tokio::select! {
                biased;
                () = answers.held.too_much.notified() => {
                    break Err(io::Error::other("the client doesn't read its answers"));
                }
                frame = read_frame(&mut reader) => frame,
            };
            match frame {
                Ok(Some(frame)) => self.take(frame, &answers, &gone),
                Ok(None) => break Ok(()),
                Err(FrameError::TooLong { stream, kind, length }) => {
                    if kind == 1 {
                        let why =
                            format!("message of {length} bytes is longer than the {MAX_MESSAGE} allowed");
                        answers.refuse(stream, Status::new(Code::ResourceExhausted, why));
                    }
                }
                Err(FrameError::Io(error)) => break Err(error),
            }
        };
        // Requests that still run hold the sender: the writing task goes when the last of them is done, or now.
        writing.abort();
        ended
    }

    fn take(&self, frame: Frame, answers: &Answers, gone: &watch::Receiver<()>) {
        let stream = frame.stream;
        if frame.kind != Kind::Request {
            // A type from the future, or data for a stream nobody opened.
            return answers.refuse(stream, Status::new(Code::InvalidArgument, "expected a request"));
        }
        if stream.is_multiple_of(2) {
            return answers
                .refuse(stream, Status::new(Code::InvalidArgument, "a client's stream ids are odd"));
        }
        let (at_work, size) = (&answers.held.at_work, frame.data.len() + OVERHEAD);
        if at_work.get() + size > MAX_AT_WORK {
            let why = format!("requests of {} bytes are at work already", at_work.get());
            return answers.refuse(stream, Status::new(Code::ResourceExhausted, why));
        }
        let request = match Request::decode(frame.data.as_slice()) {
            Ok(request) => request,
            Err(error) => {
                let why = format!("decode the request: {error}");
                return answers.refuse(stream, Status::new(Code::InvalidArgument, why));
            }
        };
        let timeout = u64::try_from(request.timeout_nano).ok().filter(|t| *t > 0).map(Duration::from_nanos);
        let call = Call {
            service: request.service,
            method: request.method,
            timeout,
            payload: request.payload,
            gone: gone.clone(),
        };
        let (router, answers) = (Rc::clone(&self.router), answers.clone());
        answers.held.at_work.set(answers.held.at_work.get() + size);
        tokio::task::spawn_local(async move {
            let result = router.call(call).await;
            answers.held.at_work.set(answers.held.at_work.get() - size);
            answers.send(answer(stream, result));
        });
    }
}

fn answer(stream: u32, result: Result<Vec<u8>, Status>) -> Frame {
    let response = match result {
        Ok(payload) => Response { status: None, payload },
        Err(status) => Response { status: Some(status.to_wire()), payload: Vec::new() },
    };
    let mut data = response.encode_to_vec();
    if data.len() > MAX_MESSAGE {
        let status = Status::new(Code::ResourceExhausted, "the answer is longer than 4 MiB");
        data = Response { status: Some(status.to_wire()), payload: Vec::new() }.encode_to_vec();
    }
    Frame { stream, kind: Kind::Response, data }
}

async fn send(mut writer: OwnedWriteHalf, mut unsent: mpsc::UnboundedReceiver<Frame>, held: Rc<Held>) {
    while let Some(frame) = unsent.recv().await {
        held.unread.set(held.unread.get().saturating_sub(frame.data.len() + HEADER));
        if write_frame(&mut writer, &frame).await.is_err() {
            return; // the reading side learns it too, and ends the connection
        }
    }
}
