//! A runtime that hangs is killed, and the call can be made again.

use std::error::Error as StdError;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use corten_runtime_client::{Error, Kind, Patience, Reaper, Runtime};

const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn a_delete_that_hangs_is_killed_and_can_be_repeated() -> Result<(), Box<dyn StdError>> {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&tokio, async {
        let dir = tempfile::tempdir()?;
        let (binary, hang) = (dir.path().join("runtime"), dir.path().join("hang"));
        fs::write(&hang, "")?;
        fs::write(&binary, format!("#!/bin/sh\n[ ! -e {} ] || exec sleep 1000\n", hang.display()))?;
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))?;
        let (reaper, children) = Reaper::new()?;
        tokio::task::spawn_local(reaper.clone().run(children));
        let mut runtime = Runtime {
            binary,
            root: None,
            systemd_cgroup: false,
            no_pivot: false,
            no_new_keyring: false,
            patience: Patience { delete: Duration::from_millis(200), ..Patience::default() },
            reaper,
        };
        let error = runtime.delete("c", true).await.err();
        assert!(matches!(&error, Some(Error::TookTooLong { verb: "delete", .. })), "{error:?}");
        assert_eq!(error.map(|error| error.kind()), Some(Kind::TookTooLong));
        // And it's gone: it was this thread's only child.
        let begin = Instant::now();
        while !fs::read_to_string("/proc/thread-self/children")?.is_empty() {
            assert!(begin.elapsed() < DEADLINE, "it lives on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        fs::remove_file(hang)?;
        runtime.patience = Patience::default();
        runtime.delete("c", true).await?;
        Ok(())
    })
}
