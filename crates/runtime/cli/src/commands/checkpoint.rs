//! `checkpoint` and `restore`: their flags, which are criu's.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use corten_container::{
    CgroupsMode, CheckpointOptions, CreateOptions, CriuOptions, RestoreOptions, RunOptions, Runtime,
};

use super::exit_code;
use crate::args::{Checkpoint, Criu, Restore};

/// Where images are unless a flag says otherwise: runc's place.
const IMAGES: &str = "checkpoint";

#[inline(never)]
pub(crate) fn checkpoint(runtime: &Runtime, args: Checkpoint) -> Result<()> {
    let options = CheckpointOptions {
        criu: criu_options(&args.criu)?,
        parent_path: args.parent_path,
        leave_running: args.leave_running,
        tcp_skip_in_flight: args.tcp_skip_in_flight,
        link_remap: args.link_remap,
        status_fd: status_fd(args.status_fd)?,
        page_server: args.page_server.as_deref().map(page_server).transpose()?,
        pre_dump: args.pre_dump,
    };
    Ok(runtime.checkpoint(&args.id, options)?)
}

#[inline(never)]
pub(crate) fn restore(runtime: &Runtime, args: Restore) -> Result<u8> {
    let options = RestoreOptions {
        criu: criu_options(&args.criu)?,
        lsm_profile: args.lsm_profile,
        lsm_mount_context: args.lsm_mount_context,
    };
    let create = CreateOptions {
        bundle: std::path::absolute(&args.bundle).context("cannot resolve --bundle")?,
        console_socket: args.console_socket,
        pid_file: args.pid_file,
        no_pivot: args.no_pivot,
        like_crun: super::is_called("crun"),
        ..CreateOptions::default()
    };
    let run = RunOptions { detach: args.detach, keep: false, no_subreaper: args.no_subreaper };
    Ok(exit_code(runtime.restore(&args.id, &create, &run, &options)?))
}

fn criu_options(args: &Criu) -> Result<CriuOptions> {
    if let Some(other) = args.empty_ns.iter().find(|namespace| *namespace != "network") {
        bail!("--empty-ns {other:?}: namespace is not supported (only network is)");
    }
    let absolute =
        |path: &Path| std::path::absolute(path).with_context(|| format!("cannot resolve {}", path.display()));
    let images = args.image_path.clone().filter(|path| !path.as_os_str().is_empty());
    Ok(CriuOptions {
        image_path: absolute(&images.unwrap_or_else(|| PathBuf::from(IMAGES)))?,
        work_path: args.work_path.as_deref().map(absolute).transpose()?,
        tcp_established: args.tcp_established,
        tcp_close: args.tcp_close,
        ext_unix_sk: args.ext_unix_sk,
        shell_job: args.shell_job,
        file_locks: args.file_locks,
        auto_dedup: args.auto_dedup,
        lazy_pages: args.lazy_pages,
        manage_cgroups: cgroups_mode(args.manage_cgroups_mode.as_deref().unwrap_or_default())?,
    })
}

fn cgroups_mode(text: &str) -> Result<CgroupsMode> {
    Ok(match text {
        "" => CgroupsMode::Default,
        "soft" => CgroupsMode::Soft,
        "full" => CgroupsMode::Full,
        "strict" => CgroupsMode::Strict,
        "ignore" => CgroupsMode::Ignore,
        _ => bail!("--manage-cgroups-mode {text:?}: must be soft, full, strict or ignore"),
    })
}

/// Address and port, as in 10.0.0.1:27 or [::1]:27.
fn page_server(text: &str) -> Result<(String, u16)> {
    let wrong = || format!("--page-server {text:?}: must be ADDRESS:PORT");
    let (address, port) = text.rsplit_once(':').with_context(wrong)?;
    let address = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
    let port = port.parse::<u16>().ok().filter(|port| *port != 0).with_context(wrong)?;
    if address.is_empty() {
        bail!(wrong());
    }
    Ok((address.to_owned(), port))
}

/// A descriptor that we were started with.
fn status_fd(number: Option<i32>) -> Result<Option<OwnedFd>> {
    let Some(number) = number.filter(|number| *number >= 0) else { return Ok(None) };
    let opened = std::fs::OpenOptions::new().write(true).open(format!("/proc/self/fd/{number}"));
    let opened = opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::from(nix::errno::Errno::EBADF),
        _ => error,
    });
    opened
        .map(|file| Some(file.into()))
        .with_context(|| format!("--status-fd {number}: cannot be written to"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_servers() {
        for (text, address, port) in
            [("10.0.0.1:27", "10.0.0.1", 27), ("[::1]:80", "::1", 80), ("h:1", "h", 1)]
        {
            assert_eq!(page_server(text).expect(text), (address.to_owned(), port));
        }
        for text in ["", "h", "h:", ":1", "h:0", "h:x", "h:65536"] {
            assert!(page_server(text).is_err(), "{text}");
        }
    }

    #[test]
    fn modes() {
        assert_eq!(cgroups_mode("full").expect("full"), CgroupsMode::Full);
        assert!(cgroups_mode("bogus").is_err());
    }

    #[test]
    fn what_is_not_open_is_no_status_descriptor() {
        assert!(status_fd(None).expect("none").is_none() && status_fd(Some(-1)).expect("none").is_none());
        let error = status_fd(Some(999)).expect_err("not open");
        assert!(format!("{error:#}").contains("--status-fd 999"), "{error:#}");
    }
}
