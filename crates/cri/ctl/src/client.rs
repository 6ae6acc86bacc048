//! The connection to the daemon, and its errors in words for people.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use corten_cri_api::{
    corten::images_client::ImagesClient,
    v1::{image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient},
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint},
};

const DEFAULT_SOCKET: &str = "/run/corten/cortend.sock";

/// Lists of a busy machine pass tonic's 4 MiB.
const MAX_MESSAGE: usize = 16 << 20;

/// The daemon's services. Cheap to clone, as each call wants its own.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) socket: PathBuf,
    channel: Channel,
}

impl Client {
    /// Connects to the socket from the command line, the environment, or where it is by default.
    pub(crate) async fn connect(socket: Option<PathBuf>) -> Result<Self> {
        let from_env = || std::env::var_os("CORTEN_SOCKET").map(PathBuf::from);
        let socket = socket.or_else(from_env).unwrap_or_else(|| DEFAULT_SOCKET.into());
        // Endpoint wraps the kernel's answer in layers of its own; this one is for people.
        drop(UnixStream::connect(&socket).await.map_err(|error| unreachable(&socket, &error))?);
        let path = socket.clone();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        let endpoint = Endpoint::from_static("http://cortend").connect_timeout(Duration::from_secs(10));
        let channel = endpoint
            .connect_with_connector(connector)
            .await
            .with_context(|| format!("connect to {}", socket.display()))?;
        Ok(Self { socket, channel })
    }

    pub(crate) fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn pulls(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel.clone())
    }
}

fn unreachable(socket: &Path, error: &std::io::Error) -> anyhow::Error {
    let socket = socket.display();
    match error.kind() {
        std::io::ErrorKind::NotFound => anyhow!("cortend is not running: there is no socket {socket}"),
        std::io::ErrorKind::ConnectionRefused => {
            anyhow!("cortend is not running: nobody listens on {socket}")
        }
        std::io::ErrorKind::PermissionDenied => {
            anyhow!("no permission to use {socket}: only root and its group may")
        }
        _ => anyhow!("cortend can't be reached at {socket}: {error}"),
    }
}

/// The answer, or the daemon's error as a person reads it.
pub(crate) trait Answer<T> {
    /// `what` completes the sentence "can't ...".
    fn or_say(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Answer<T> for Result<Response<T>, Status> {
    fn or_say(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map(Response::into_inner).map_err(|status| say(&status, &what()))
    }
}

/// The error of a call as a person reads it.
pub(crate) fn say(status: &Status, what: &str) -> anyhow::Error {
    match status.code() {
        Code::Unimplemented => anyhow!("can't {what}: this cortend doesn't offer that"),
        Code::Unavailable if status.message().is_empty() => anyhow!("can't {what}: cortend went away"),
        code if status.message().is_empty() => anyhow!("can't {what}: {}", code.description()),
        _ => anyhow!("can't {what}: {}", status.message()),
    }
}

/// For options that need a terminal or input in the container.
pub(crate) fn refuse_streaming(interactive: bool, tty: bool) -> Result<()> {
    if interactive || tty {
        bail!(
            "-i and -t need cortend's streaming server, which isn't there yet: \
             leave them out, or use `run -d` with `logs -f` and `exec`"
        );
    }
    Ok(())
}
