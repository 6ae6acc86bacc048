//! Events for containerd, in the order in which they happen, each until it has been taken.
//!
//! While containerd is away nobody makes calls, so all that can come up is that processes end: the queue grows by what
//! there is in the pod and no more. Should it be full nevertheless, events of execs go first, an exit of a container last,
//! and it is logged. An event whose answer is lost with the connection is sent again: twice rather than never.
//! Under cortend nobody wants events: it asks.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use corten_runtime_client::Reaper;
use corten_task_api::proto::containerd::events::TaskExit;
use corten_task_api::proto::containerd::services::events::ttrpc::v1::ForwardRequest;
use corten_task_api::proto::containerd::types::Envelope;
use corten_task_api::services;
use corten_task_api::time::{now_ns, to_timestamp};
use corten_task_api::ttrpc::{Client, Code};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prost::Message;
use tokio::sync::Notify;

use crate::args::Args;

const EXIT: &str = "/tasks/exit";
/// Events kept while containerd is away.
const KEPT: usize = 2048;
const TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts to reach containerd: from the first to the last.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));
/// How often containerd may refuse an event before it is given up: others wait behind it.
const REFUSALS: u32 = 5;

/// Where events go.
#[derive(Debug, PartialEq, Eq)]
enum Outlet {
    Nobody,
    /// containerd's ttrpc socket.
    Ttrpc(PathBuf),
    /// `<binary> --address <address> publish`, for a containerd without that socket.
    Binary {
        binary: String,
        address: String,
    },
}

impl Outlet {
    fn of(args: &Args) -> Self {
        let path = |address: &str| PathBuf::from(address.strip_prefix("unix://").unwrap_or(address));
        match (args.address.as_str(), args.ttrpc_address.as_str(), args.publish_binary.as_str()) {
            ("", ..) => Self::Nobody,
            (address, "", "") => Self::Ttrpc(path(&format!("{address}.ttrpc"))),
            (address, "", binary) => Self::Binary { binary: binary.to_owned(), address: address.to_owned() },
            (_, socket, _) => Self::Ttrpc(path(socket)),
        }
    }
}

/// What has become of an attempt.
enum Attempt {
    Taken,
    Away(String),
    Refused(String),
}

/// Publishes what happens to tasks.
#[derive(Debug)]
pub struct Events {
    namespace: String,
    outlet: Outlet,
    reaper: Reaper,
    queue: RefCell<VecDeque<Envelope>>,
    more: Notify,
    fewer: Notify,
}

impl Events {
    pub(crate) fn new(args: &Args, reaper: Reaper) -> Rc<Self> {
        Rc::new(Self {
            namespace: args.namespace.clone(),
            outlet: Outlet::of(args),
            reaper,
            queue: RefCell::default(),
            more: Notify::new(),
            fewer: Notify::new(),
        })
    }

    /// Publishes an event: `("exit", "TaskExit", ...)` is /tasks/exit with a containerd.events.TaskExit. Never waits.
    pub fn publish(&self, topic: &str, message_name: &str, event: &impl Message) {
        if self.outlet == Outlet::Nobody {
            return;
        }
        let event = services::any(&format!("containerd.events.{message_name}"), event);
        let topic = format!("/tasks/{topic}");
        let mut queue = self.queue.borrow_mut();
        // A container that is out of memory again and again says so once at a time.
        if topic == "/tasks/oom" && queue.iter().any(|e| e.topic == topic && e.event.as_ref() == Some(&event))
        {
            return;
        }
        make_room(&mut queue);
        queue.push_back(Envelope {
            timestamp: to_timestamp(now_ns()),
            namespace: self.namespace.clone(),
            topic,
            event: Some(event),
        });
        self.more.notify_one();
    }

    /// Sends events for ever. Returns at once when nobody wants them.
    pub(crate) async fn run(self: Rc<Self>) {
        let mut connection = None;
        let (mut pause, mut refusals) = (RETRY.0, 0);
        if self.outlet == Outlet::Nobody {
            return;
        }
        loop {
            let Some(envelope) = self.queue.borrow().front().cloned() else {
                self.more.notified().await;
                continue;
            };
            match self.attempt(&mut connection, &envelope).await {
                Attempt::Taken => self.forget(&envelope),
                Attempt::Refused(why) if refusals + 1 == REFUSALS => {
                    tracing::warn!(
                        topic = envelope.topic,
                        why,
                        "containerd refuses an event: it is given up"
                    );
                    self.forget(&envelope);
                }
                Attempt::Refused(why) => {
                    tracing::debug!(topic = envelope.topic, why, "containerd refuses an event");
                    refusals += 1;
                    tokio::time::sleep(RETRY.0).await;
                    continue;
                }
                Attempt::Away(why) => {
                    tracing::debug!(why, "containerd is away");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY.1);
                    continue;
                }
            }
            (pause, refusals) = (RETRY.0, 0);
        }
    }

    async fn attempt(&self, connection: &mut Option<Client>, envelope: &Envelope) -> Attempt {
        let socket = match &self.outlet {
            Outlet::Nobody => return Attempt::Taken,
            Outlet::Binary { binary, address } => return self.run_binary(binary, address, envelope).await,
            Outlet::Ttrpc(socket) => socket,
        };
        let client = match connection.take() {
            Some(client) => client,
            None => match Client::connect(socket).await {
                Ok(client) => client,
                Err(error) => return Attempt::Away(error.to_string()),
            },
        };
        let request = ForwardRequest { envelope: Some(envelope.clone()) };
        let answer = client.call::<()>(services::EVENTS, "Forward", &request, Some(TIMEOUT)).await;
        match answer {
            Err(status) if matches!(status.code, Code::Unavailable | Code::DeadlineExceeded) => {
                return Attempt::Away(status.message);
            }
            _ => *connection = Some(client),
        }
        answer.map_or_else(|status| Attempt::Refused(status.message), |()| Attempt::Taken)
    }

    async fn run_binary(&self, binary: &str, address: &str, envelope: &Envelope) -> Attempt {
        let started = payload(envelope).and_then(|stdin| {
            let mut command = Command::new(binary);
            command.args(["--address", address, "publish", "--topic", &envelope.topic]);
            command.args(["--namespace", &envelope.namespace]);
            self.reaper.spawn(command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::null()))
        });
        let (pid, end) = match started {
            Ok(started) => started,
            Err(error) => return Attempt::Away(format!("run {binary}: {error}")),
        };
        match tokio::time::timeout(TIMEOUT, end).await {
            Ok(exited) if exited.status == 0 => Attempt::Taken,
            // It can't tell us whether containerd is away or refuses: it's taken for away.
            Ok(exited) => Attempt::Away(format!("{binary} publish has ended with {}", exited.status)),
            Err(_) => {
                let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL); // it may be ending
                Attempt::Away(format!("{binary} publish takes longer than {TIMEOUT:?}"))
            }
        }
    }

    /// Waits until all has been sent, for a while.
    pub(crate) async fn flush(&self) {
        let sent = async {
            while !self.queue.borrow().is_empty() {
                self.fewer.notified().await;
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
        self.fewer.notify_one();
    }
}

/// Gives up an event when there is no room for another.
fn make_room(queue: &mut VecDeque<Envelope>) {
    if queue.len() < KEPT {
        return;
    }
    let dispensable =
        |e: &Envelope| e.topic.starts_with("/tasks/exec-") || e.topic == "/tasks/oom" || is_execs_exit(e);
    let victim = queue.iter().position(dispensable);
    let victim = victim.or_else(|| queue.iter().position(|e| e.topic != EXIT)).unwrap_or(0);
    if let Some(lost) = queue.remove(victim) {
        tracing::warn!(topic = lost.topic, "containerd takes no events: one is given up");
    }
}

/// The topic is the same as that of a container's.
fn is_execs_exit(envelope: &Envelope) -> bool {
    let exit = envelope.event.as_ref().map(|event| TaskExit::decode(event.value.as_slice()));
    envelope.topic == EXIT && exit.is_some_and(|exit| exit.is_ok_and(|exit| exit.id != exit.container_id))
}

/// The event as a file to read from.
fn payload(envelope: &Envelope) -> io::Result<Stdio> {
    let mut file = File::from(memfd_create(c"event", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&envelope.event.as_ref().map(Message::encode_to_vec).unwrap_or_default())?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(topic: &str) -> Envelope {
        Envelope { topic: topic.to_owned(), ..Envelope::default() }
    }

    #[test]
    fn exits_are_the_last_to_be_given_up() {
        let mut queue: VecDeque<_> = std::iter::repeat_n(envelope("/tasks/exit"), KEPT - 1).collect();
        queue.push_back(envelope("/tasks/exec-added"));
        make_room(&mut queue);
        assert!(queue.len() == KEPT - 1 && queue.iter().all(|e| e.topic == "/tasks/exit"));
        make_room(&mut queue);
        assert_eq!(queue.len(), KEPT - 1);
    }

    #[test]
    fn exits_of_execs_are_given_up_before_those_of_containers() {
        let exit = |id: &str| {
            let event = TaskExit { container_id: "c".to_owned(), id: id.to_owned(), ..TaskExit::default() };
            Envelope { event: Some(services::any("containerd.events.TaskExit", &event)), ..envelope(EXIT) }
        };
        let mut queue: VecDeque<_> = std::iter::repeat_n(exit("c"), KEPT - 2).collect();
        queue.extend([envelope("/tasks/delete"), exit("e")]);
        make_room(&mut queue);
        assert!(queue.len() == KEPT - 1 && !queue.contains(&exit("e")));
        queue.push_back(exit("c"));
        make_room(&mut queue);
        assert!(queue.len() == KEPT - 1 && queue.iter().all(|e| *e == exit("c")));
    }

    #[test]
    fn where_events_go() {
        let outlet = |line: &str| {
            let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            words.extend(["-id".to_owned(), "x".to_owned(), "serve".to_owned()]);
            Outlet::of(&Args::parse(words.into_iter().map(Into::into)).unwrap())
        };
        assert_eq!(outlet("-address= -ttrpc-address /t"), Outlet::Nobody);
        assert_eq!(
            outlet("-address /a -ttrpc-address unix:///t -publish-binary /b"),
            Outlet::Ttrpc("/t".into())
        );
        let binary = Outlet::Binary { binary: "/b".into(), address: "/a".into() };
        assert_eq!(outlet("-address /a -publish-binary /b"), binary);
        assert_eq!(outlet("-address /a"), Outlet::Ttrpc("/a.ttrpc".into()));
    }
}
