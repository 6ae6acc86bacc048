//! A container in memory.

use std::sync::{Arc, Mutex};

use corten_cri_api::v1::{
    ContainerMetadata, ContainerResources, ContainerState, ContainerStatus, ContainerUser, ImageSpec,
    LinuxContainerUser,
};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::entry::Entry;
use crate::records::{ContainerPhase, ContainerRecord, Ended};
use crate::{Result, spec};

/// A container: its record, who works on it, and who waits for its end.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) entry: Entry<ContainerRecord>,
    /// Held by what changes the container's phase.
    pub(crate) work: tokio::sync::Mutex<()>,
    /// Turns true when the end is on record.
    pub(crate) ended: watch::Sender<bool>,
    /// When the stop that is under way will kill. Another stop can only bring that forward.
    pub(crate) stopping: Mutex<Option<watch::Sender<Instant>>>,
    /// What was last seen of its cost, to compute rates from and to spare the disk.
    pub(crate) sample: Mutex<Sample>,
}

/// What statistics remember from one request to the next.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    /// When, and how much CPU time by then.
    pub(crate) cpu: Option<(i64, u64)>,
    pub(crate) nano_cores: Option<u64>,
    /// When, and the writable layer's bytes and inodes then.
    pub(crate) layer: Option<(i64, u64, u64)>,
}

impl Container {
    pub(crate) fn new(id: &str, entry: Entry<ContainerRecord>) -> Self {
        let ended = matches!(entry.get().phase, ContainerPhase::Exited(_));
        Self {
            id: id.to_owned(),
            entry,
            work: tokio::sync::Mutex::default(),
            ended: watch::Sender::new(ended),
            stopping: Mutex::default(),
            sample: Mutex::default(),
        }
    }

    pub(crate) fn record(&self) -> Arc<ContainerRecord> {
        self.entry.get()
    }

    /// Records the end and tells who waits for it. Does nothing for a container whose end is known already.
    pub(crate) async fn end(&self, ended: Ended) -> Result<()> {
        if matches!(self.record().phase, ContainerPhase::Running { .. } | ContainerPhase::Starting) {
            self.entry.update(|record| record.phase = ContainerPhase::Exited(ended)).await?;
        }
        self.ended.send_replace(true);
        Ok(())
    }
}

impl ContainerRecord {
    pub(crate) fn metadata(&self) -> ContainerMetadata {
        self.config.metadata.clone().unwrap_or_default()
    }

    pub(crate) fn state(&self) -> ContainerState {
        match self.phase {
            ContainerPhase::Creating | ContainerPhase::Created | ContainerPhase::Starting => {
                ContainerState::ContainerCreated
            }
            ContainerPhase::Running { .. } => ContainerState::ContainerRunning,
            ContainerPhase::Exited(_) => ContainerState::ContainerExited,
            ContainerPhase::Removing => ContainerState::ContainerUnknown,
        }
    }

    /// The image as the client named it, under the name that people know.
    pub(crate) fn image_spec(&self) -> ImageSpec {
        let mut spec = self.config.image.clone().unwrap_or_default();
        spec.image.clone_from(&self.image_name);
        spec
    }

    pub(crate) fn status(&self) -> ContainerStatus {
        let ended = match &self.phase {
            ContainerPhase::Exited(ended) => Some(ended.clone()),
            _ => None,
        };
        let ended = ended.as_ref();
        ContainerStatus {
            id: self.id.clone(),
            metadata: Some(self.metadata()),
            state: self.state().into(),
            created_at: self.created_at,
            started_at: self.phase.started_at(),
            finished_at: ended.map_or(0, |ended| ended.finished_at),
            exit_code: ended.map_or(0, |ended| ended.exit_code),
            image: Some(self.image_spec()),
            image_ref: self.image_id.clone(),
            reason: ended.map(|ended| ended.reason.clone()).unwrap_or_default(),
            message: ended.map(|ended| ended.message.clone()).unwrap_or_default(),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            mounts: self.config.mounts.clone(),
            log_path: self.log_path.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
            resources: Some(ContainerResources { linux: Some(self.resources.clone()), windows: None }),
            image_id: self.image_id.clone(),
            user: Some(ContainerUser {
                linux: Some(LinuxContainerUser {
                    uid: self.identity.uid.into(),
                    gid: self.identity.gid.into(),
                    supplemental_groups: self.identity.groups.iter().map(|group| (*group).into()).collect(),
                }),
            }),
            stop_signal: spec::signal_of_number(self.stop_signal).into(),
        }
    }
}

impl Ended {
    /// How a process of the container's ended that started at `started_at`.
    pub(crate) fn of(exit: corten_task::Exit, started_at: i64) -> Self {
        let exit_code = i32::try_from(exit.status).unwrap_or(i32::MAX);
        let reason = match (exit.oom_killed, exit_code) {
            (true, _) => "OOMKilled",
            (false, 0) => "Completed",
            (false, _) => "Error",
        };
        Self {
            started_at,
            finished_at: exit.exited_at_ns,
            exit_code,
            reason: reason.to_owned(),
            message: String::new(),
        }
    }

    /// An end that nobody witnessed.
    pub(crate) fn unknown(started_at: i64, message: &str) -> Self {
        Self {
            started_at,
            finished_at: crate::time::now(),
            exit_code: 137,
            reason: "ContainerStatusUnknown".to_owned(),
            message: message.to_owned(),
        }
    }
}
