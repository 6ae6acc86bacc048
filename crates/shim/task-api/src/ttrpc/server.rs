//! The server: many connections on one thread.
//!
//! Each request becomes a task of its own, so a slow one stalls nobody. A request whose client goes away runs on to
//! its end (half a create helps no one), except where the handler itself asks [`Call::gone`].

use std::io;
use std::rc::Rc;
use std::time::Duration;

use prost::Message;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, watch};

use super::codec::{Frame, FrameError, Kind, MAX_MESSAGE, read_frame, write_frame};
use super::status::{Code, Status};
use crate::proto::ttrpc::{Request, Response};

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
        let (answers, queue) = mpsc::unbounded_channel();
        let writing = tokio::task::spawn_local(send(writer, queue));
        let (_alive, gone) = watch::channel(());
        let ended = loop {
            match read_frame(&mut reader).await {
                Ok(Some(frame)) => self.take(frame, &answers, &gone),
                Ok(None) => break Ok(()),
                Err(FrameError::TooLong { stream, kind, length }) => {
                    if kind == 1 {
                        let why =
                            format!("message of {length} bytes is longer than the {MAX_MESSAGE} allowed");
                        refuse(&answers, stream, Status::new(Code::ResourceExhausted, why));
                    }
                }
                Err(FrameError::Io(error)) => break Err(error),
            }
        };
        // Requests that still run hold the sender: the writing task goes when the last of them is done, or now.
        writing.abort();
        ended
    }

    fn take(&self, frame: Frame, answers: &mpsc::UnboundedSender<Frame>, gone: &watch::Receiver<()>) {
        let stream = frame.stream;
        if frame.kind != Kind::Request {
            // A type from the future, or data for a stream nobody opened.
            return refuse(answers, stream, Status::new(Code::InvalidArgument, "expected a request"));
        }
        if stream.is_multiple_of(2) {
            return refuse(
                answers,
                stream,
                Status::new(Code::InvalidArgument, "a client's stream ids are odd"),
            );
        }
        let request = match Request::decode(frame.data.as_slice()) {
            Ok(request) => request,
            Err(error) => {
                let why = format!("decode the request: {error}");
                return refuse(answers, stream, Status::new(Code::InvalidArgument, why));
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
        tokio::task::spawn_local(async move {
            let result = router.call(call).await;
            let _ = answers.send(answer(stream, result)); // the client may have gone: then nobody waits for it
        });
    }
}

fn refuse(answers: &mpsc::UnboundedSender<Frame>, stream: u32, status: Status) {
    let _ = answers.send(answer(stream, Err(status))); // as above
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

async fn send(mut writer: OwnedWriteHalf, mut queue: mpsc::UnboundedReceiver<Frame>) {
    while let Some(frame) = queue.recv().await {
        if write_frame(&mut writer, &frame).await.is_err() {
            return; // the reading side learns it too, and ends the connection
        }
    }
}
