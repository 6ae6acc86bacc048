//! Who the program runs as: user, groups, capabilities, directory, HOME.

use std::{
    ffi::CString,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use corten_sys::{
    capability::{self, Set},
    process,
};
use nix::{
    errno::Errno,
    libc,
    sys::stat::{Mode, SFlag, fstat, makedev, umask},
    unistd::{Uid, chdir, fchown, getcwd},
};

use crate::{
    Error, Result,
    error::Doing,
    plan::{CapabilityPlan, ProcessPlan},
};

/// Changes into the working directory as root, who may where the user may not; false says that it is closed to root
/// (NFS), and that [`become_user`] has to try. Before any filter is loaded: that may well refuse chdir(2) and getcwd(2).
pub(crate) fn enter_directory(plan: &ProcessPlan) -> Result<bool> {
    match chdir(&plan.cwd) {
        Err(Errno::EACCES) => Ok(false),
        other => {
            directory(other, &plan.cwd)?;
            inside(&plan.cwd)?;
            Ok(true)
        }
    }
}

/// Becomes the user: with all privileges on entry, with just those of the plan on return. The executable is looked
/// for by the caller afterwards, as that user. `entered` is what [`enter_directory`] said.
pub(crate) fn become_user(
    plan: &ProcessPlan,
    entered: bool,
    setgroups: bool,
    warn: &mut impl FnMut(String),
) -> Result<()> {
    stdio(plan);
    let capabilities = plan.capabilities.map(|wanted| grantable(wanted, warn)).transpose()?;
    if let Some(capabilities) = &capabilities {
        capability::limit_bounding(capabilities.bounding)
            .doing(|| "limit the bounding set of capabilities".to_owned())?;
    }
    let keep = plan.uid != 0;
    if keep {
        process::keep_capabilities(true).doing(|| "keep capabilities".to_owned())?;
    }
    // None of the config's groups is as good as an empty list: ours aren't the container's.
    let groups = (setgroups && !plan.keep_groups).then_some(plan.groups.as_slice());
    if !(setgroups || plan.keep_groups || plan.groups.is_empty()) {
        return Err(io::Error::from_raw_os_error(libc::EPERM)).doing(|| {
            format!(
                "set process.user.additionalGids {:?}: its user namespace denies setgroups, as it was made without root",
                plan.groups
            )
        });
    }
    process::set_user(plan.uid, plan.gid, groups)
        .doing(|| format!("become user {} group {} groups {:?}", plan.uid, plan.gid, plan.groups))?;
    if keep {
        process::keep_capabilities(false).doing(|| "not keep capabilities".to_owned())?;
    }
    umask(Mode::from_bits_truncate(plan.umask & 0o777));
    if !entered {
        directory(chdir(&plan.cwd), &plan.cwd)?;
        inside(&plan.cwd)?;
    }
    if let Some(c) = &capabilities {
        capability::set(c.effective, c.permitted, c.inheritable)
            .doing(|| "set the capabilities".to_owned())?;
        capability::set_ambient(c.ambient).doing(|| "set the ambient capabilities".to_owned())?;
    }
    Ok(())
}

fn directory(result: nix::Result<()>, cwd: &Path) -> Result<()> {
    result.doing(|| format!("change into process.cwd {}", cwd.display()))
}

/// The current directory must be reachable from our root, or it's the host's (CVE-2024-21626).
fn inside(cwd: &Path) -> Result<()> {
    match getcwd() {
        Ok(path) if path.is_absolute() => Ok(()),
        _ => Err(io::Error::from_raw_os_error(libc::ENOENT))
            .doing(|| format!("use process.cwd {}: it is outside of the container", cwd.display())),
    }
}

/// What we don't have can't be given: a warning, as runtime-spec wants it.
fn grantable(wanted: CapabilityPlan, warn: &mut impl FnMut(String)) -> Result<CapabilityPlan> {
    let (_, permitted, _) = capability::get().doing(|| "read our capabilities".to_owned())?;
    let all = [wanted.bounding, wanted.effective, wanted.inheritable, wanted.permitted, wanted.ambient];
    let missing = all.into_iter().fold(Set::default(), |sum, set| Set(sum.0 | set.0)).0 & !permitted.0;
    if missing != 0 {
        warn(format!("capabilities {missing:#x} can't be granted: the runtime doesn't have them"));
    }
    let mut granted = CapabilityPlan {
        bounding: wanted.bounding,
        effective: wanted.effective.and(permitted),
        inheritable: wanted.inheritable.and(permitted),
        permitted: wanted.permitted.and(permitted),
        ambient: wanted.ambient,
    };
    granted.effective = granted.effective.and(granted.permitted);
    let usable = granted.ambient.and(granted.permitted).and(granted.inheritable);
    // What the runtime itself lacks has been said above.
    let left_out = Set(granted.ambient.0 & !usable.0 & !missing);
    for number in left_out.numbers() {
        let name = capability::NAMES.get(number as usize).copied().unwrap_or("unknown");
        warn(format!("can't raise ambient capability {name}: it isn't both permitted and inheritable"));
    }
    granted.ambient = usable;
    Ok(granted)
}

/// Gives the user what stdio is connected to, so that /dev/stdout and the like can be opened. Best effort: some
/// files can't be given away, and needn't be.
fn stdio(plan: &ProcessPlan) {
    let uid = plan.uid;
    for result in [give(io::stdin(), uid), give(io::stdout(), uid), give(io::stderr(), uid)] {
        result.ok(); // because sockets, files of read-only systems and unmapped owners refuse, harmlessly
    }
}

fn give(fd: impl std::os::fd::AsFd, uid: u32) -> nix::Result<()> {
    let stat = fstat(&fd)?;
    let null = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR
        && stat.st_rdev == makedev(1, 3);
    // Never the host's /dev/null.
    if stat.st_uid == uid || null {
        return Ok(());
    }
    fchown(fd, Some(Uid::from_raw(uid)), None)
}

/// `HOME=` from the container's /etc/passwd, or `/`.
pub(crate) fn home(uid: u32) -> Result<CString> {
    // A fifo there must not keep us waiting, and a device isn't a list of users.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open("/etc/passwd");
    let file = file.ok().filter(|file| file.metadata().is_ok_and(|metadata| metadata.is_file()));
    let directory = file.and_then(|file| lookup(file, uid));
    CString::new(format!("HOME={}", directory.as_deref().unwrap_or("/")))
        .map_err(io::Error::from)
        .doing(|| "read HOME from /etc/passwd".to_owned())
}

fn lookup(file: File, uid: u32) -> Option<String> {
    // The image's author could make it endless.
    for line in BufReader::new(file.take(1 << 20)).lines().map_while(Result::ok) {
        let mut fields = line.split(':');
        if fields.nth(2).and_then(|field| field.parse().ok()) == Some(uid) {
            return fields.nth(2).filter(|home| !home.is_empty()).map(str::to_owned);
        }
    }
    None
}

/// The error of a program that can't be run.
pub(crate) fn no_program(program: &str, reason: impl Into<String>) -> Error {
    Error::Program { program: program.to_owned(), reason: reason.into() }
}
