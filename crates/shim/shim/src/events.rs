//! Events for containerd, in the order in which they happen. Kept while it is away, the oldest given up first when it
//! stays away. Under cortend nobody wants them: it asks.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use corten_task_api::proto::containerd::services::events::ttrpc::v1::ForwardRequest;
use corten_task_api::proto::containerd::types::Envelope;
use corten_task_api::services;
use corten_task_api::time::{now_ns, to_timestamp};
use corten_task_api::ttrpc::Client;
use prost::Message;
use tokio::sync::Notify;

/// Events kept while containerd is away.
const KEPT: usize = 2048;
const TIMEOUT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(1);

/// Where events go.
#[derive(Debug)]
pub(crate) struct Events {
    namespace: String,
    socket: Option<PathBuf>,
    queue: RefCell<VecDeque<Envelope>>,
    more: Notify,
}

impl Events {
    /// `address` is containerd's ttrpc socket.
    pub(crate) fn new(namespace: &str, address: &str) -> Rc<Self> {
        let path = address.strip_prefix("unix://").unwrap_or(address);
        Rc::new(Self {
            namespace: namespace.to_owned(),
            socket: (!path.is_empty()).then(|| path.into()),
            queue: RefCell::default(),
            more: Notify::new(),
        })
    }

    pub(crate) fn publish(&self, topic: &str, message_name: &str, event: &impl Message) {
        if self.socket.is_none() {
            return;
        }
        let mut queue = self.queue.borrow_mut();
        if queue.len() == KEPT {
            tracing::warn!("containerd takes no events: the oldest is given up");
            queue.pop_front();
        }
        queue.push_back(Envelope {
            timestamp: to_timestamp(now_ns()),
            namespace: self.namespace.clone(),
            topic: format!("/tasks/{topic}"),
            event: Some(services::any(&format!("containerd.events.{message_name}"), event)),
        });
        self.more.notify_one();
    }

    /// Sends events for ever. Returns at once when nobody wants them.
    pub(crate) async fn run(self: Rc<Self>) {
        let Some(socket) = &self.socket else { return };
        let mut connection: Option<Client> = None;
        loop {
            let Some(envelope) = self.queue.borrow().front().cloned() else {
                self.more.notified().await;
                continue;
            };
            let Some(client) = connection.take().or(Client::connect(socket).await.ok()) else {
                tokio::time::sleep(RETRY).await;
                continue;
            };
            let sent = envelope.clone();
            let request = ForwardRequest { envelope: Some(envelope) };
            match client.call::<()>(services::EVENTS, "Forward", &request, Some(TIMEOUT)).await {
                Ok(()) => {
                    connection = Some(client);
                    self.forget(&sent);
                }
                Err(status) => {
                    tracing::debug!(%status, "an event couldn't be sent");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Waits until all has been sent, for a while.
    pub(crate) async fn flush(&self) {
        let sent = async {
            while self.socket.is_some() && !self.queue.borrow().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(TIMEOUT, sent).await; // containerd is away: it will learn by asking
    }

    /// The front may have been given up meanwhile.
    fn forget(&self, sent: &Envelope) {
        let mut queue = self.queue.borrow_mut();
        if queue.front() == Some(sent) {
            queue.pop_front();
        }
    }
}
