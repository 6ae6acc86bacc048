//! `mounts[]`, in their order.

use std::{
    ffi::{CStr, CString, OsString},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::ffi::OsStrExt,
    path::{Component, Path},
};

use corten_sys::mount::{self, Attributes, BorrowedFdEq, Change, Filesystem, Propagation};
use corten_sys::path::open_in_root;
use nix::{
    fcntl::{OFlag, openat, readlinkat},
    libc,
    sys::stat::{Mode, fstat},
};

use super::{
    by_mount::{self, Wanted},
    cgroup_mount,
    target::{
        Make, is_directory, is_link, make_link, open_or_make, open_or_make_last_no_link,
        open_or_make_no_links,
    },
};
use crate::{
    Result,
    error::Doing,
    plan::{FsOption, InProc, Link, Mount, MountKind, Plan},
    procfs::is_procfs,
};

/// What is mounted but has to become read-only later, because more is to be made inside.
#[derive(Debug)]
pub(crate) struct Late(Vec<(OwnedFd, CString)>);

/// A bind mount's source, opened by the parent, which may reach more than init in a user namespace.
#[derive(Debug)]
pub(crate) enum Source {
    /// To be attached.
    Mount { tree: OwnedFd, directory: bool },
    /// Where the link leads to that is to be made.
    Link(OsString),
}

/// What a mount has unless its options say otherwise, and what it's made by.
#[derive(Debug, Clone, Copy)]
struct Defaults {
    propagation: (Propagation, bool),
    in_user_namespace: bool,
}

impl Defaults {
    fn new(plan: &Plan) -> Self {
        let propagation = match plan.rootfs.propagation {
            None | Some((Propagation::Unbindable, _)) => (Propagation::Slave, true),
            Some(given) => given,
        };
        Self { propagation, in_user_namespace: plan.in_user_namespace }
    }
}

/// Opens the sources of all bind mounts as detached mounts with their attributes set; None for other mounts, and for
/// what lies in the rootfs, which is opened in its turn: an earlier mount may have put it there.
/// `userns` opens the user namespace with the mappings of an id-mapped mount.
pub(crate) fn open_sources(
    plan: &Plan,
    userns: &dyn Fn(&Mount) -> Result<OwnedFd>,
) -> Result<Vec<Option<Source>>> {
    let open = |mount| match inside(plan, mount) {
        Some(_) => Ok(None),
        None => source(plan, mount, userns),
    };
    plan.mounts.iter().map(open).collect()
}

/// The path in the container of a bind mount's source that lies in the rootfs, and needs nothing that only the parent
/// can have.
pub(crate) fn inside<'a>(plan: &Plan, mount: &'a Mount) -> Option<&'a Path> {
    let MountKind::Bind { source, .. } = &mount.kind else { return None };
    if mount.idmap.is_some() || mount.in_proc == InProc::Itself {
        return None;
    }
    below_rootfs(plan, source)
}

/// The path in the container of what lies in the rootfs.
fn below_rootfs<'a>(plan: &Plan, source: &'a Path) -> Option<&'a Path> {
    if plan.rootfs.path == Path::new("/") {
        return None; // then everything is, and the host's is meant
    }
    let path = source.strip_prefix(&plan.rootfs.path).ok().filter(|path| !path.as_os_str().is_empty())?;
    path.components().all(|component| matches!(component, Component::Normal(_))).then_some(path)
}

/// Opens such a source, without ever leaving the rootfs.
fn source_inside(root: BorrowedFd<'_>, plan: &Plan, mount: &Mount) -> Result<Option<Source>> {
    let (Some(path), MountKind::Bind { recursive, link, .. }) = (inside(plan, mount), &mount.kind) else {
        return Ok(None);
    };
    let doing = || format!("bind mount {} of the rootfs on {}", path.display(), show(&mount.destination));
    let source = open_below(root, path, *recursive, *link).doing(doing)?;
    if let Source::Mount { tree, .. } = &source {
        attributes(tree.as_fd(), mount, Defaults::new(plan))?;
    }
    Ok(Some(source))
}

fn open_below(root: BorrowedFd<'_>, path: &Path, recursive: bool, link: Link) -> io::Result<Source> {
    let place = open_inside(root, path, link)?;
    if link == Link::Copied && is_link(place.as_fd())? {
        return Ok(Source::Link(readlinkat(&place, c"")?));
    }
    let tree = mount::clone_tree(place.as_fd(), c"", recursive)?;
    Ok(Source::Mount { directory: is_directory(tree.as_fd())?, tree })
}

/// Opens (O_PATH) `path` as it looks from inside `root`. A link at its end is followed only if `link` says so; those on the
/// way are the image's, and always followed inside.
pub(crate) fn open_inside(root: BorrowedFd<'_>, path: &Path, link: Link) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let last = if link == Link::Followed { 0 } else { libc::O_NOFOLLOW };
    open_in_root(root, &path, libc::O_PATH | last, 0)
}

/// Opens a source on the host, with a path of the host's.
fn open_outside(path: &Path, recursive: bool, link: Link) -> io::Result<Source> {
    if link == Link::Copied {
        match std::fs::read_link(path) {
            // An ordinary bind mount.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
            target => return target.map(|to| Source::Link(to.into_os_string())),
        }
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let tree = match link {
        Link::Mounted => mount::clone_tree_path_nofollow(&path, recursive),
        _ => mount::clone_tree_path(&path, recursive),
    }?;
    Ok(Source::Mount { directory: is_directory(tree.as_fd())?, tree })
}

fn source(plan: &Plan, mount: &Mount, userns: &dyn Fn(&Mount) -> Result<OwnedFd>) -> Result<Option<Source>> {
    let MountKind::Bind { source, recursive, link } = &mount.kind else { return Ok(None) };
    let doing = || format!("bind mount {} on {}", source.display(), show(&mount.destination));
    let opened = match below_rootfs(plan, source) {
        // The parent's turn comes before other mounts are there, but links of the image's lead nowhere else for it either.
        Some(path) => std::fs::File::open(&plan.rootfs.path)
            .and_then(|root| open_below(root.as_fd(), path, *recursive, *link)),
        None => open_outside(source, *recursive, *link),
    };
    let opened = opened.doing(doing)?;
    let Source::Mount { tree, .. } = &opened else { return Ok(Some(opened)) };
    if mount.in_proc == InProc::Itself && !is_procfs(tree.as_fd()).doing(doing)? {
        return Err(io::Error::from_raw_os_error(libc::EPERM))
            .doing(|| format!("{}: only a procfs may be there", doing()));
    }
    if let Some(idmap) = &mount.idmap {
        let userns = userns(mount)?;
        let change = Change { idmap: Some(BorrowedFdEq(userns.as_fd())), ..Change::default() };
        mount::set_attributes(tree.as_fd(), idmap.recursive, &change)
            .doing(|| format!("id-map {}", show(&mount.destination)))?;
    }
    attributes(tree.as_fd(), mount, Defaults::new(plan))?;
    Ok(Some(opened))
}

/// Sets attributes and propagation of a bind mount, in as few calls as they allow: one, most often.
fn attributes(tree: BorrowedFd<'_>, mount: &Mount, default: Defaults) -> Result<()> {
    let doing = || format!("set the options of the mount on {}", show(&mount.destination));
    let mut propagation = mount.propagation.iter().copied();
    let (first, first_recursive) = propagation.next().unwrap_or(default.propagation);
    let own = Change { set: mount.set, clear: cleared(mount, default), ..Change::default() };
    let all = Change {
        set: mount.set_recursive,
        clear: mount.clear_recursive,
        propagation: first_recursive.then_some(first),
        ..Change::default()
    };
    if all != Change::default() {
        mount::set_attributes(tree, true, &all).doing(doing)?;
    }
    let own = Change { propagation: (!first_recursive).then_some(first), ..own };
    if !(own.set.is_empty() && own.propagation.is_none() && own.clear.is_empty()) {
        mount::set_attributes(tree, false, &own).doing(doing)?;
    }
    for (kind, recursive) in propagation {
        let change = Change { propagation: Some(kind), ..Change::default() };
        mount::set_attributes(tree, recursive, &change).doing(doing)?;
    }
    Ok(())
}

/// What the options of a bind mount clear. Without any, it has those of its source; as soon as there is one, those
/// that aren't given are off, as mount(2) has it for a remount, and runc and crun with it: `bind,ro` of a mount that is
/// noexec can be executed from. In a user namespace what the host has locked stays unless it's named.
fn cleared(mount: &Mount, default: Defaults) -> Attributes {
    if mount.set.is_empty() && mount.clear.is_empty() {
        return mount.clear;
    }
    let lockable = Attributes::RDONLY | Attributes::NOSUID | Attributes::NODEV | Attributes::NOEXEC;
    let others = if default.in_user_namespace { Attributes::empty() } else { lockable };
    mount.clear | ((others | Attributes::NOSYMFOLLOW) - mount.set - mount.set_recursive)
}

/// Mounts everything.
pub(crate) fn all(root: BorrowedFd<'_>, plan: &Plan, sources: &[Option<Source>]) -> Result<Late> {
    let mut late = Late(Vec::new());
    for (mount, source) in plan.mounts.iter().zip(sources) {
        match (&mount.kind, source) {
            (MountKind::Bind { .. }, Some(source)) => bind(root, mount, source)?,
            (MountKind::Bind { .. }, None) => {
                if let Some(source) = source_inside(root, plan, mount)? {
                    bind(root, mount, &source)?;
                }
            }
            (MountKind::Filesystem { name, source, options, copy_up }, _) => {
                let label = plan.mount_label.as_deref();
                filesystem(root, mount, &New { name, source, options, copy_up: *copy_up, label }, &mut late)?;
            }
            (MountKind::Cgroup(cgroup), _) => {
                cgroup_mount::mount(root, mount, cgroup, plan.mount_label.as_deref())?;
            }
            (MountKind::Remount { options, bind }, _) => remount(root, mount, options, *bind)?,
        }
    }
    Ok(late)
}

/// Gives what is mounted at the destination other options.
fn remount(root: BorrowedFd<'_>, mount: &Mount, options: &[FsOption], bind: bool) -> Result<()> {
    let doing = || format!("remount {}", show(&mount.destination));
    let target = open_in_root(root, &mount.destination, libc::O_PATH, 0).doing(doing)?;
    let all = Change { set: mount.set_recursive, clear: mount.clear_recursive, ..Change::default() };
    let own = Change { set: mount.set, clear: mount.clear, ..Change::default() };
    for (change, recursive) in [(all, true), (own, false)] {
        if change != Change::default() {
            mount::set_attributes(target.as_fd(), recursive, &change).doing(doing)?;
        }
    }
    propagate(target.as_fd(), mount)?;
    if bind || options.is_empty() {
        return Ok(());
    }
    let fs = Filesystem::pick(target.as_fd()).doing(doing)?;
    configure(&fs, options).and_then(|()| fs.reconfigure()).doing(|| {
        let message = fs.message().map(|m| format!(" ({m})")).unwrap_or_default();
        doing() + &message
    })
}

/// Sets the propagation, in the order given.
fn propagate(tree: BorrowedFd<'_>, mount: &Mount) -> Result<()> {
    for &(kind, recursive) in &mount.propagation {
        let change = Change { propagation: Some(kind), ..Change::default() };
        mount::set_attributes(tree, recursive, &change)
            .doing(|| format!("set the propagation of {}", show(&mount.destination)))?;
    }
    Ok(())
}

/// What mount(2) knows as a default, or as to be quiet, and file systems don't know as a word.
pub(super) fn is_default(option: &FsOption) -> bool {
    matches!(option.key.to_bytes(), b"async" | b"nomand" | b"nolazytime" | b"silent")
}

/// Sets options of a file system, as mount(2) would have understood them.
pub(super) fn configure(fs: &Filesystem, options: &[FsOption]) -> io::Result<()> {
    for option in options {
        match &option.value {
            Some(value) => fs.string(&option.key, value)?,
            // What is a flag of mount(2) for every file system isn't a word for fsconfig(2): some defaults, and to
            // be quiet. "iversion" is one for those that can do without.
            None if is_default(option) => {}
            None if option.key.as_c_str() == c"iversion" => match fs.flag(c"i_version") {
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
                other => other?,
            },
            None => fs.flag(&option.key)?,
        }
    }
    Ok(())
}

fn bind(root: BorrowedFd<'_>, mount: &Mount, source: &Source) -> Result<()> {
    let (tree, directory) = match source {
        Source::Mount { tree, directory } => (tree, *directory),
        Source::Link(to) => {
            return make_link(root, &mount.destination, to)
                .doing(|| format!("make the link {} to {}", show(&mount.destination), to.display()));
        }
    };
    let target = place(root, mount, if directory { Make::Directory } else { Make::File })?;
    attach(tree.as_fd(), target.as_fd()).doing(|| {
        let source = match &mount.kind {
            MountKind::Bind { source, .. } => format!(" {}", source.display()),
            _ => String::new(),
        };
        format!("bind mount{source} on {}", show(&mount.destination))
    })
}

/// Puts a detached mount in its place.
///
/// That a directory can't be mounted on a file, nor a file on a directory, move_mount(2) tells as EINVAL, and mount(2) as
/// ENOTDIR: what callers know, and people understand.
fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    mount::move_mount(tree, target).map_err(|e| {
        let kinds = (is_directory(tree), is_directory(target));
        match (e.raw_os_error(), kinds) {
            (Some(libc::EINVAL), (Ok(tree), Ok(target))) if tree != target => {
                io::Error::from_raw_os_error(libc::ENOTDIR)
            }
            _ => e,
        }
    })
}

/// Opens or makes the target of a mount. What is mounted on /dev mustn't go where a link of the image's points to
/// (CVE-2026-41579): the nodes made there afterwards would. `strict`: nor must anything else.
fn place_strictly(root: BorrowedFd<'_>, mount: &Mount, make: Make, strict: bool) -> Result<OwnedFd> {
    let destination = mount.destination.as_c_str();
    let target = if strict || matches!(destination.to_bytes(), b"/dev" | b"/dev/") {
        open_or_make_no_links(root, destination, make).doing(|| {
            format!(
                "mount on {}: what is there must be mounted on ordinary directory, not on a link",
                show(destination)
            )
        })?
    } else {
        let open = if mount.over_link { open_or_make_last_no_link } else { open_or_make };
        open(root, destination, make).doing(|| format!("open mount target {}", show(destination)))?
    };
    // The plan has refused what says so openly; here is where a link of the image's led to.
    if mount.in_proc == InProc::No
        && is_procfs(target.as_fd()).doing(|| format!("stat {}", show(destination)))?
    {
        return Err(io::Error::from_raw_os_error(libc::EPERM))
            .doing(|| format!("mount on {}: it leads into /proc", show(destination)));
    }
    Ok(target)
}

/// Opens or makes the target of a mount.
pub(crate) fn place(root: BorrowedFd<'_>, mount: &Mount, make: Make) -> Result<OwnedFd> {
    place_strictly(root, mount, make, false)
}

/// A file system of the container's own.
struct New<'a> {
    name: &'a CStr,
    source: &'a CStr,
    options: &'a [FsOption],
    copy_up: bool,
    /// The SELinux context.
    label: Option<&'a CStr>,
}

impl New<'_> {
    /// Files of proc and sysfs have labels by their names, and mqueue takes none as an option.
    fn is_labelled(&self) -> bool {
        !matches!(self.name.to_bytes(), b"proc" | b"sysfs" | b"mqueue")
    }
}

fn filesystem(root: BorrowedFd<'_>, mount: &Mount, new: &New<'_>, late: &mut Late) -> Result<()> {
    let destination = mount.destination.as_c_str();
    // Masks and sysctls count on proc and sysfs being where they look (CVE-2019-19921).
    let kernel = matches!(new.name.to_bytes(), b"proc" | b"sysfs");
    let tmpfs = new.name == c"tmpfs";
    // A tmpfs without a mode looks like the directory that it covers, if there is one.
    let like = tmpfs
        && !new.options.iter().any(|option| option.key.as_c_str() == c"mode")
        && open_in_root(root, destination, libc::O_PATH, 0).is_ok();
    let target = place_strictly(root, mount, Make::Directory, kernel)?;
    let mut set = mount.set | mount.set_recursive;
    // More mounts and nodes may have to be made in it first.
    let later = tmpfs && set.contains(Attributes::RDONLY);
    set.set(Attributes::RDONLY, set.contains(Attributes::RDONLY) && !later);
    let mut mode = None;
    if like {
        let stat = fstat(&target).doing(|| format!("stat {}", show(destination)))?;
        mode = CString::new(format!("{:o}", stat.st_mode & 0o7777)).ok();
    }
    if is_long(new) {
        let New { name, source, options, .. } = *new;
        let label = new.label.filter(|_| new.is_labelled());
        let wanted = Wanted { name, source, options, mode: mode.as_deref(), label, set };
        by_mount::mount(&target, destination, &wanted)?;
        // mount(2) gives us no descriptor, so the place has to be looked up again for what mount(2) can't do at once.
        if later || !mount.propagation.is_empty() {
            let tree = open_in_root(root, destination, libc::O_PATH, 0)
                .doing(|| format!("open the mount on {}", show(destination)))?;
            propagate(tree.as_fd(), mount)?;
            if later {
                late.0.push((tree, destination.to_owned()));
            }
        }
        return Ok(());
    }
    let made = superblock(new, mode.as_deref(), set, false).or_else(|(e, message)| {
        // A medium that can't be written wants the whole file system to be read-only, not just the mount.
        let readonly = matches!(e.raw_os_error(), Some(libc::EACCES | libc::EROFS));
        if readonly && set.contains(Attributes::RDONLY) {
            superblock(new, mode.as_deref(), set, true)
        } else {
            Err((e, message))
        }
    });
    let tree = match made {
        // A user namespace that doesn't own the network namespace can't mount sysfs: the host's is all there is.
        Err((e, _)) if new.name == c"sysfs" && e.raw_os_error() == Some(libc::EPERM) => host_sysfs(set),
        Err((e, message)) => Err(e).doing(|| {
            let message = message.map(|m| format!(" ({m})")).unwrap_or_default();
            let label = new.label.filter(|_| new.is_labelled());
            let label = label.map(|label| format!(" with linux.mountLabel {:?}", show(label)));
            format!("mount {} on {}{}{message}", show(new.name), show(destination), label.unwrap_or_default())
        }),
        Ok(tree) => Ok(tree),
    }?;
    if new.copy_up {
        super::target::copy_up(target.as_fd(), tree.as_fd())
            .doing(|| format!("copy what {} covers", show(destination)))?;
    }
    attach(tree.as_fd(), target.as_fd())
        .doing(|| format!("mount {} on {}", show(new.name), show(destination)))?;
    propagate(tree.as_fd(), mount)?;
    if let Some(label) = new.label.filter(|_| new.name == c"mqueue") {
        set_label(&tree, label).doing(|| format!("set the SELinux label of {}", show(destination)))?;
    }
    if later {
        late.0.push((tree, destination.to_owned()));
    }
    Ok(())
}

fn superblock(
    new: &New<'_>,
    mode: Option<&CStr>,
    set: Attributes,
    readonly: bool,
) -> Result<OwnedFd, (io::Error, Option<String>)> {
    let fs = Filesystem::open(new.name).map_err(|e| (e, None))?;
    let tree = (|| {
        if !new.source.is_empty() {
            fs.string(c"source", new.source)?;
        }
        configure(&fs, new.options)?;
        if readonly {
            fs.flag(c"ro")?;
        }
        if let Some(label) = new.label.filter(|_| new.is_labelled()) {
            fs.string(c"context", label)?;
        }
        if let Some(mode) = mode {
            fs.string(c"mode", mode)?;
        }
        fs.mount(set)
    })();
    tree.map_err(|e| (e, fs.message()))
}

/// Whether an option is longer than the 255 characters that fsconfig(2) takes of each, as the lower directories of an
/// overlay may be. What is to be copied up must be so before the mount is there, which takes fsconfig(2).
fn is_long(new: &New<'_>) -> bool {
    let long = |option: &FsOption| option.value.as_ref().is_some_and(|value| value.to_bytes().len() > 255);
    !new.copy_up && new.options.iter().any(long)
}

fn set_label(tree: &OwnedFd, label: &CStr) -> io::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = openat(tree, c".", flags, Mode::empty())?;
    corten_sys::xattr::fset(&directory, b"security.selinux", label.to_bytes())
}

fn host_sysfs(set: Attributes) -> Result<OwnedFd> {
    let doing = || "bind mount the host's /sys".to_owned();
    let tree = mount::clone_tree_path(c"/sys", true).doing(doing)?;
    let change = Change { set: set | Attributes::RDONLY, ..Change::default() };
    mount::set_attributes(tree.as_fd(), true, &change).doing(doing)?;
    Ok(tree)
}

impl Late {
    /// Makes read-only what had to wait.
    pub(crate) fn finish(self) -> Result<()> {
        let change = Change { set: Attributes::RDONLY, ..Change::default() };
        for (tree, destination) in self.0 {
            mount::set_attributes(tree.as_fd(), false, &change)
                .doing(|| format!("make {} read-only", show(&destination)))?;
        }
        Ok(())
    }
}

/// A path for an error message.
pub(crate) fn show(path: &CStr) -> String {
    String::from_utf8_lossy(path.to_bytes()).into_owned()
}
