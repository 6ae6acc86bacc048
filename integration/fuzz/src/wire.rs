//! What a shim's client sends.

use corten_task_api::Message;
use corten_task_api::proto::containerd::runc::v1::Options;
use corten_task_api::proto::containerd::task::v3 as task;
use corten_task_api::proto::corten::shim::v1 as corten;
use corten_task_api::proto::ttrpc::Request;
use corten_task_api::ttrpc::{FrameError, HEADER, read_frame, write_frame};

/// A connection's bytes: frames, as far as they are; those that are, are written as they were read.
pub(crate) fn frames(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers");
    runtime.block_on(async {
        let mut rest = bytes;
        loop {
            let before = rest;
            match read_frame(&mut rest).await {
                Ok(Some(frame)) => {
                    let mut written = Vec::new();
                    write_frame(&mut written, &frame).await.expect("what was read can be written");
                    // But for the flags, which nobody looks at.
                    let read = &before[..before.len() - rest.len()];
                    assert_eq!(written[..HEADER - 1], read[..HEADER - 1]);
                    assert_eq!(written[HEADER..], read[HEADER..]);
                    Request::decode(frame.data.as_slice()).ok(); // because it may be none
                }
                Err(FrameError::TooLong { .. }) => assert!(rest.len() < before.len()),
                Ok(None) | Err(FrameError::Io(_)) => return,
            }
        }
    });
}

/// A request's message: what can be decoded is encoded to something that decodes to the same.
pub(crate) fn messages(bytes: &[u8]) {
    same::<Request>(bytes);
    same::<Options>(bytes);
    same::<task::CreateTaskRequest>(bytes);
    same::<task::ExecProcessRequest>(bytes);
    same::<task::UpdateTaskRequest>(bytes);
    same::<task::KillRequest>(bytes);
    same::<task::DeleteResponse>(bytes);
    same::<corten::ExecSyncRequest>(bytes);
    same::<corten::ExecSyncResponse>(bytes);
    same::<corten::ListResponse>(bytes);
}

fn same<M: Message + Default + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(message) = M::decode(bytes) else { return };
    let again = M::decode(message.encode_to_vec().as_slice());
    assert!(again.is_ok_and(|again| again == message), "{message:?} isn't what it was");
}
