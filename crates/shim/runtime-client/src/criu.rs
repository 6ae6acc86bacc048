//! What checkpoint and restore take.

use std::ffi::OsString;
use std::path::PathBuf;

/// How to write a container to disk. criu refuses what it isn't told that it may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Where the images go.
    pub image_path: PathBuf,
    /// Where criu works, and logs.
    pub work_path: PathBuf,
    /// An earlier image that this one builds upon.
    pub parent_path: Option<PathBuf>,
    /// End the container with it.
    pub exit: bool,
    /// There may be open TCP connections.
    pub tcp_established: bool,
    /// Unix sockets may lead out of the container.
    pub external_unix_sockets: bool,
    /// There may be a terminal.
    pub shell_job: bool,
    /// Files may be locked.
    pub file_locks: bool,
    /// Namespaces to come back empty, such as `network`.
    pub empty_namespaces: Vec<String>,
    /// How much of cgroups: soft, full, strict.
    pub cgroups_mode: Option<String>,
}

impl Checkpoint {
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["--image-path".into(), self.image_path.clone().into()];
        arguments.extend(["--work-path".into(), self.work_path.clone().into()]);
        if let Some(parent) = &self.parent_path {
            arguments.extend(["--parent-path".into(), parent.into()]);
        }
        let flags = [
            ("--leave-running", !self.exit),
            ("--tcp-established", self.tcp_established),
            ("--ext-unix-sk", self.external_unix_sockets),
            ("--shell-job", self.shell_job),
            ("--file-locks", self.file_locks),
        ];
        arguments.extend(flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| flag.into()));
        for namespace in &self.empty_namespaces {
            arguments.extend(["--empty-ns".into(), namespace.into()]);
        }
        if let Some(mode) = &self.cgroups_mode {
            arguments.extend(["--manage-cgroups-mode".into(), mode.into()]);
        }
        arguments
    }
}

/// What to restore from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restore {
    /// Where the images are.
    pub image_path: PathBuf,
    /// Where criu works, and logs.
    pub work_path: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_flags() {
        let plain = Checkpoint { image_path: "/i".into(), work_path: "/w".into(), ..Checkpoint::default() };
        assert_eq!(plain.arguments(), ["--image-path", "/i", "--work-path", "/w", "--leave-running"]);
        let all = Checkpoint {
            parent_path: Some("/p".into()),
            exit: true,
            tcp_established: true,
            empty_namespaces: vec!["network".into()],
            cgroups_mode: Some("soft".into()),
            ..plain
        };
        let expected = "--image-path /i --work-path /w --parent-path /p --tcp-established --empty-ns network \
                        --manage-cgroups-mode soft";
        assert_eq!(all.arguments(), expected.split_whitespace().collect::<Vec<_>>());
    }
}
