//! `corten.v1.Images/Pull`: a pull that tells how far it is.

use std::collections::HashMap;
use std::sync::Arc;

use corten_cri_api::corten::images_server::Images;
use corten_cri_api::corten::{PullPhase, PullProgress, PullRequest};
use corten_image::{Auth, LayerProgress, Phase, Progress, PullOptions};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use crate::server::Server;

/// Messages on their way to a client; a slow one holds back only its own.
const QUEUE: usize = 64;

type Sender = mpsc::Sender<Result<PullProgress, Status>>;

#[tonic::async_trait]
impl Images for Server {
    async fn pull(&self, request: Request<PullRequest>) -> Result<Response<BoxStream<PullProgress>>, Status> {
        let request = request.into_inner();
        if request.reference.is_empty() {
            return Err(Status::invalid_argument("the request names no image"));
        }
        let (sender, receiver) = mpsc::channel(QUEUE);
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move {
            let (progress, seen) = watch::channel(Progress::default());
            let auth =
                (!request.username.is_empty()).then(|| Auth::basic(request.username, request.password));
            let pull = inner.pull(&request.reference, PullOptions { auth, progress: Some(progress) });
            let done = tokio::select! {
                done = pull => done,
                // Nobody listens any more, so nobody waits for this pull either.
                () = sender.closed() => return,
                () = tell(&sender, seen) => return,
            };
            let last = done.map_err(Status::from).map(|image| PullProgress {
                phase: PullPhase::Complete.into(),
                image_id: image.id,
                ..Default::default()
            });
            let _ = sender.send(last).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Sends on what changes. Ends only with the client.
async fn tell(sender: &Sender, mut seen: watch::Receiver<Progress>) {
    let resolving = PullProgress { phase: PullPhase::Resolving.into(), ..Default::default() };
    let _ = sender.send(Ok(resolving)).await;
    let mut told: HashMap<String, PullProgress> = HashMap::new();
    while seen.changed().await.is_ok() {
        let layers = seen.borrow_and_update().layers.clone();
        for layer in &layers {
            let message = message(layer);
            if told.get(&message.digest) == Some(&message) {
                continue;
            }
            told.insert(message.digest.clone(), message.clone());
            if sender.send(Ok(message)).await.is_err() {
                return;
            }
        }
    }
    // The pull is about to say how it ended.
    std::future::pending::<()>().await;
}

fn message(layer: &LayerProgress) -> PullProgress {
    let (phase, current) = match layer.phase {
        Phase::Waiting => (PullPhase::Waiting, 0),
        Phase::Downloading => (PullPhase::Downloading, layer.downloaded),
        Phase::Extracting => (PullPhase::Unpacking, layer.extracted),
        Phase::Done => (PullPhase::Done, layer.total),
        Phase::AlreadyExists => (PullPhase::Exists, layer.total),
    };
    PullProgress {
        digest: layer.digest.to_string(),
        phase: phase.into(),
        current,
        total: layer.total,
        image_id: String::new(),
    }
}
