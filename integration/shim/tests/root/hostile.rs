//! Clients that break the rules, leave, or flood: they're answered or cut off, and nobody else notices.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use corten_task_api::proto::containerd::task::v3::{StateRequest, WaitRequest};
use corten_task_api::proto::ttrpc::{Request, Response};
use corten_task_api::services::{CORTEN, TASK};
use corten_task_api::ttrpc::Code;
use integration_shim::Pod;
use integration_shim::footprint::{descriptors, status_kib};
use integration_support::{DEADLINE, Kind, wait_until};
use prost::Message;

use crate::root::wire::{connect, frame};

/// One of them all: how the shim takes requests has nothing to do with the runtime.
macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        mod shim {
            $(#[test]
            fn $name() -> anyhow::Result<()> {
                integration_shim::on(super::Kind::Corten, stringify!($name), super::$name)
            })+
        }
    };
}

tests!(
    half_open_connections_hold_nobody_up,
    a_flood_of_requests_is_answered,
    who_does_not_read_is_cut_off,
    clients_that_leave_take_nothing_with_them,
    garbage_for_every_method_is_an_invalid_argument,
    noise_is_survived,
);

const METHODS: [(&str, &str); 20] = [
    (TASK[0], "Create"),
    (TASK[0], "Start"),
    (TASK[0], "Delete"),
    (TASK[0], "Exec"),
    (TASK[0], "Kill"),
    (TASK[0], "Wait"),
    (TASK[0], "State"),
    (TASK[0], "Pids"),
    (TASK[0], "Stats"),
    (TASK[0], "Connect"),
    (TASK[0], "CloseIO"),
    (TASK[0], "ResizePty"),
    (TASK[0], "Pause"),
    (TASK[0], "Resume"),
    (TASK[0], "Update"),
    (TASK[0], "Shutdown"),
    (TASK[1], "State"),
    (CORTEN, "ExecSync"),
    (CORTEN, "ReopenLog"),
    (CORTEN, "NoSuchMethod"),
];

pub(crate) fn request(stream: u32, service: &str, method: &str, payload: Vec<u8>) -> Vec<u8> {
    let (service, method) = (service.to_owned(), method.to_owned());
    frame(stream, 1, &Request { service, method, payload, ..Request::default() }.encode_to_vec())
}

/// The next answer: its stream, and its code (0 is success).
fn answer(from: &mut UnixStream) -> Result<(u32, i32)> {
    let mut header = [0; 10];
    from.read_exact(&mut header).context("read an answer's header")?;
    let [a, b, c, d, s, t, u, v, ..] = header;
    let mut body = vec![0; u32::from_be_bytes([a, b, c, d]) as usize];
    from.read_exact(&mut body).context("read an answer")?;
    let response = Response::decode(body.as_slice())?;
    Ok((u32::from_be_bytes([s, t, u, v]), response.status.map_or(0, |status| status.code)))
}

/// The shim works, and has open what it had before, no more and no less.
async fn is_as_before(pod: &Pod<'_>, before: &[PathBuf]) -> Result<()> {
    has_open(pod, before)?;
    ensure!(pod.shim.list().await?.is_empty());
    Ok(())
}

fn has_open(pod: &Pod<'_>, before: &[PathBuf]) -> Result<()> {
    let mut now = Vec::new();
    let same = wait_until("the connections to be closed", DEADLINE, || {
        now = descriptors(pod.shim_pid)?;
        Ok((now == before).then_some(()))
    });
    same.with_context(|| format!("open were {before:?}, now {now:?}"))
}

async fn half_open_connections_hold_nobody_up(pod: &Pod<'_>) -> Result<()> {
    let before = descriptors(pod.shim_pid)?;
    let whole = request(1, TASK[0], "State", StateRequest::default().encode_to_vec());
    let mut open = Vec::new();
    for n in 0..300 {
        let mut stream = connect(pod)?;
        stream.write_all(&whole[..n % whole.len()])?;
        open.push(stream);
    }
    let id = pod.sh("c", "exec sleep 1000").await?;
    ensure!(pod.exec(&id, "true", None).await?.exit_code == 0);
    pod.remove(&id).await?;
    drop(open);
    is_as_before(pod, &before).await
}

async fn a_flood_of_requests_is_answered(pod: &Pod<'_>) -> Result<()> {
    const MANY: u32 = 5000;
    let before = descriptors(pod.shim_pid)?;
    let mut stream = connect(pod)?;
    let mut writer = stream.try_clone()?;
    let flood = std::thread::spawn(move || -> std::io::Result<()> {
        for n in 0..MANY {
            let payload = StateRequest { id: format!("c{n}"), ..StateRequest::default() }.encode_to_vec();
            writer.write_all(&request(2 * n + 1, TASK[0], "State", payload))?;
        }
        Ok(())
    });
    let mut answered = vec![false; MANY as usize];
    for _ in 0..MANY {
        let (id, code) = answer(&mut stream)?;
        ensure!(code == Code::NotFound as i32, "stream {id}: code {code}");
        let seen = answered.get_mut(id as usize / 2).context("an answer for nobody")?;
        ensure!(!std::mem::replace(seen, true), "stream {id} is answered twice");
    }
    flood.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
    drop(stream);
    is_as_before(pod, &before).await
}

async fn who_does_not_read_is_cut_off(pod: &Pod<'_>) -> Result<()> {
    let before = descriptors(pod.shim_pid)?;
    let mut stream = connect(pod)?;
    stream.set_write_timeout(Some(DEADLINE))?;
    // The answer repeats the name.
    let name = "x".repeat(1 << 20);
    let mut sent = 0;
    let cut_off = loop {
        match stream.write_all(&request(2 * sent + 1, TASK[0], &name, Vec::new())) {
            Ok(()) if sent < 400 => sent += 1,
            Ok(()) => break false,
            Err(error) => {
                break matches!(
                    error.kind(),
                    std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset
                );
            }
        }
    };
    ensure!(cut_off, "{sent} MiB are taken from a client that reads nothing");
    let resident = status_kib(pod.shim_pid, "VmRSS")?;
    ensure!(resident < 300 << 10, "the shim holds {resident} KiB");
    drop(stream);
    is_as_before(pod, &before).await
}

async fn clients_that_leave_take_nothing_with_them(pod: &Pod<'_>) -> Result<()> {
    let id = pod.sh("c", "exec sleep 1000").await?;
    let before = descriptors(pod.shim_pid)?;
    let wait = WaitRequest { id: id.clone(), ..WaitRequest::default() }.encode_to_vec();
    for n in 0..100 {
        let mut stream = connect(pod)?;
        let (service, method) = METHODS[n % METHODS.len()];
        if !matches!(method, "Kill" | "Delete" | "Shutdown") {
            stream.write_all(&request(1, service, method, wait.clone()))?;
        }
        stream.write_all(&request(3, TASK[0], "Wait", wait.clone()))?;
    }
    has_open(pod, &before)?;
    // What they had begun is brought to its end: they may have paused it.
    pod.shim.kill(&id, "", 9, true).await?;
    pod.shim.wait(&id).await?;
    pod.shim.delete(&id).await?;
    Ok(())
}

async fn garbage_for_every_method_is_an_invalid_argument(pod: &Pod<'_>) -> Result<()> {
    let mut stream = connect(pod)?;
    for (service, method) in METHODS {
        // A length that goes on after the end.
        stream.write_all(&request(1, service, method, vec![0x0a, 0x7f, b'x']))?;
        let (_, code) = answer(&mut stream)?;
        let expected = match method {
            "NoSuchMethod" => Code::Unimplemented,
            _ => Code::InvalidArgument,
        };
        ensure!(code == expected as i32, "{service} {method}: code {code}");
        // And ids that lead out of their place.
        for bad in ["", "../x", "a/b", "-x", "\n"] {
            let payload = StateRequest { id: bad.to_owned(), ..StateRequest::default() }.encode_to_vec();
            // Which shim this is, may be asked with any id.
            if matches!(method, "Shutdown" | "Connect") {
                continue;
            }
            stream.write_all(&request(1, service, method, payload))?;
            let (_, code) = answer(&mut stream)?;
            ensure!(code != 0, "{service} {method} of {bad:?} succeeds");
        }
    }
    ensure!(pod.shim.list().await?.is_empty());
    Ok(())
}

async fn noise_is_survived(pod: &Pod<'_>) -> Result<()> {
    let before = descriptors(pod.shim_pid)?;
    // xorshift: the same noise each time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..300 {
        let mut stream = connect(pod)?;
        let length = (next() % 200) as usize;
        let noise: Vec<u8> = (0..length).map(|_| next().to_le_bytes()[3]).collect();
        let bytes = match round % 3 {
            0 => noise,
            1 => frame(1, (next() % 5) as u8, &noise),
            _ => request(1, METHODS[round % 15].0, METHODS[round % 15].1, noise),
        };
        stream.write_all(&bytes).ok(); // because it may be cut off already
    }
    is_as_before(pod, &before).await
}
