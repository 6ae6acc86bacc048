//! `restore`: a container whose processes come from the files of a `checkpoint`.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use corten_bundle::Bundle;
use corten_cgroups::Cgroup;
use corten_sys::{
    mount::{self, Propagation},
    process::{Namespaces, pidfd_open, setns, unshare},
};
use oci_spec::runtime::LinuxNamespaceType;

use crate::{
    CreateOptions, Outcome, Result, RunOptions, Runtime, Status,
    alone::alone,
    cgroup::{self, CgroupDoing},
    checkpoint::DESCRIPTORS,
    create::{connect, initial_state, record},
    criu::{
        self, CriuOptions, Directories, Outside, mounts,
        rpc::{self, Kind},
        session::{self, Event, Session},
    },
    error::Doing,
    filter::{self, Filter},
    foreground::{Foreground, Subreaper},
    hooks::{self, Output, Surroundings},
    load, pid_file,
    plan::Plan,
    query::Now,
    rdt::{self, Groups},
    record::{Home, Identity, Record, now},
    support,
    undo::Undo,
};

/// The log's name, which containerd's shim copies.
const LOG: &str = "restore.log";
/// Where criu sees the rootfs: a mount of its own, which it demands, and only in its own mount namespace.
const ROOT: &str = "criu-root";

/// How to restore, beside what create and run have.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// What checkpoint has too.
    pub criu: CriuOptions,
    /// TYPE:NAME of a security profile in place of the one that was saved.
    pub lsm_profile: Option<String>,
    /// A mount context in place of the one that was saved.
    pub lsm_mount_context: Option<String>,
}

/// A restored container.
struct Restored {
    home: Home,
    record: Record,
    pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
}

impl Runtime {
    /// Restores a container; unless detached waits for it, passing signals on, and deletes it.
    ///
    /// # Errors
    /// Those of [`Self::create`], and [`crate::Error::Criu`] with what criu says; the system is then as before.
    pub fn restore(
        &self,
        id: &str,
        create: &CreateOptions,
        run: &RunOptions,
        options: &RestoreOptions,
    ) -> Result<Outcome> {
        alone("restore a container")?;
        let subreaper = Subreaper::begin(!run.detach && !run.no_subreaper)?;
        let mut undo = Undo::default();
        let restored = match self.try_restore(id, create, run, options, &mut undo) {
            Ok(restored) => restored,
            Err(error) => return Err(undo.roll_back(error)),
        };
        let Restored { home, record, pidfd, terminal } = restored;
        let pid = record.init.pid;
        if run.detach {
            return Ok(Outcome::Detached(pid));
        }
        let code = Foreground::begin(subreaper.is_some())
            .and_then(|foreground| foreground.wait(pid, &pidfd, terminal));
        if !run.keep {
            self.clear_up(&Now { home, record, filter: Vec::new(), status: Status::Stopped, init: None })?;
        }
        code.map(Outcome::Exited)
    }

    fn try_restore(
        &self,
        id: &str,
        create: &CreateOptions,
        run: &RunOptions,
        options: &RestoreOptions,
        undo: &mut Undo<'static>,
    ) -> Result<Restored> {
        let home = Home::new(&self.root, id)?;
        let (bundle, plan) = load::plan(load::read(create)?, create)?;
        support::container(&plan)?;
        let filter = filter::compile(&bundle.spec, &plan)?;
        session::check_version()?;
        let console = connect(create.console_socket.as_deref(), plan.process.terminal, !run.detach)?;
        let outside = Outside::new(&bundle, &plan.rootfs.path);
        home.make()?;
        undo.push("remove the state directory", {
            let home = home.clone();
            move || home.remove()
        });
        let place = cgroup::place(self, &bundle.spec, id)?;
        home.note_cgroup(place.path())?;
        // Kept until criu, and so the restored init, is in the cgroup.
        let (cgroup, _placeholder) = place.make(self, &bundle.spec)?;
        undo.push("remove the cgroup", {
            let cgroup = cgroup.clone();
            move || cgroup::destroy(&cgroup)
        });
        let groups = rdt::make(id, &plan, undo)?;
        let mut attendant = Attendant {
            home,
            cgroup,
            groups,
            bundle,
            plan,
            filter,
            console: console.map(OwnedFd::from),
            restored: None,
            terminal: None,
        };
        attendant.run(&outside, options)?;
        let operation = || format!("restore container {id}");
        let (record, pidfd) =
            attendant.restored.ok_or_else(|| criu::wrong(operation(), "criu restored no process"))?;
        if let Some(path) = &create.pid_file {
            pid_file::write(path, record.init.pid)?;
        }
        Ok(Restored { home: attendant.home, record, pidfd, terminal: attendant.terminal })
    }
}

/// Who answers criu while it restores.
struct Attendant {
    home: Home,
    cgroup: Cgroup,
    /// For resource control, if the config asks for it.
    groups: Option<Groups>,
    bundle: Bundle,
    plan: Plan,
    filter: Option<Filter>,
    console: Option<OwnedFd>,
    /// The restored init, once there is one.
    restored: Option<(Record, OwnedFd)>,
    terminal: Option<OwnedFd>,
}

impl Attendant {
    fn run(&mut self, outside: &Outside, options: &RestoreOptions) -> Result<()> {
        let root = self.home.file(ROOT);
        fs::create_dir(&root).doing(|| format!("make {}", root.display()))?;
        let mut given = rpc::Options::default();
        let inherited = namespaces(outside, &mut given)?;
        inherit_stdio(&options.criu.image_path, &mut given)?;
        let Started { session, directories, moved } =
            start(&self.plan, &self.home, &options.criu, &inherited)?;
        external_mounts(outside, &moved, &mut given);
        let annotations = self.bundle.spec.annotations().iter().flatten();
        let annotations = annotations.map(|(key, value)| (key.clone(), value.clone())).collect();
        let mut request = rpc::Options {
            root: Some(root.display().to_string()),
            evasive_devices: Some(true),
            // The restored init is to be our child, not criu's.
            rst_sibling: Some(true),
            lsm_profile: options.lsm_profile.clone(),
            lsm_mount_context: options.lsm_mount_context.clone(),
            config_file: criu::config_file(&annotations),
            external_mounts: given.external_mounts,
            inherit_fd: given.inherit_fd,
            join_ns: given.join_ns,
            ..directories.common(&options.criu)
        };
        // What criu makes is born where it is itself.
        self.cgroup.add_pid(session.pid()).cgroup("join", self.cgroup.path())?;
        if let Some(groups) = &self.groups {
            groups.enter(session.pid())?;
        }
        request.cgroup_roots = cgroup_roots(session.pid())?;
        let operation = format!("restore container {}", self.home.id);
        session::run(session, Kind::Restore, request, directories.log(), &operation, &mut |event| {
            self.attend(event)
        })
    }

    fn attend(&mut self, event: Event) -> Result<()> {
        match event.script.as_str() {
            "setup-namespaces" => self.run_hooks(event.pid),
            "post-restore" => self.keep(event.pid),
            "orphan-pts-master" => self.pass_on_terminal(event.fds),
            _ => Ok(()),
        }
    }

    fn run_hooks(&self, pid: i32) -> Result<()> {
        let mut state = initial_state(&self.home.id, &self.bundle, &self.plan);
        state.pid = pid;
        let (hooks, bundle) = (&self.plan.hooks, &self.bundle.path);
        let output = Output::open(&self.plan.trusted)?;
        let run = |kind, hooks| hooks::run(kind, hooks, &state, bundle, &Surroundings::Ours, &output);
        run("prestart", hooks.prestart().as_ref())?;
        run("createRuntime", hooks.create_runtime().as_ref())
    }

    /// There is an init: its state is saved before it may go on.
    fn keep(&mut self, pid: i32) -> Result<()> {
        let pidfd = pidfd_open(pid).doing(|| format!("open process {pid}"))?;
        let identity = Identity::new(pid, pidfd.as_fd()).doing(|| "identify init".to_owned())?;
        let mut state = initial_state(&self.home.id, &self.bundle, &self.plan);
        state.created = now();
        let live = (identity, self.cgroup.clone(), self.groups.clone());
        let mut record = record(&self.bundle, &self.plan, state, live, self.filter.as_ref());
        if own_clock(pid) {
            record.namespaces |= Namespaces::TIME.bits();
        }
        self.home.save(&record, &filter::to_bytes(self.filter.as_ref()))?;
        self.restored = Some((record, pidfd));
        Ok(())
    }

    fn pass_on_terminal(&mut self, fds: Vec<OwnedFd>) -> Result<()> {
        let Some(master) = fds.into_iter().next() else { return Ok(()) };
        match &self.console {
            Some(socket) => corten_sys::fds::send(socket.as_fd(), b"/dev/pts", &[master.as_fd()])
                .map(drop)
                .doing(|| "send the terminal to the console socket".to_owned()),
            None => {
                self.terminal = Some(master);
                Ok(())
            }
        }
    }
}

/// criu keeps clocks going by restoring into a time namespace, asked or not.
fn own_clock(pid: i32) -> bool {
    let clock = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/time")).ok();
    clock(&pid.to_string()) != clock("self")
}

fn external_mounts(outside: &Outside, moved: &[mounts::Moved], request: &mut rpc::Options) {
    let mounts = &mut request.external_mounts;
    mounts.extend(outside.binds.iter().map(|(target, source)| {
        let place = moved.iter().find(|moved| moved.source == *source).map_or(source, |moved| &moved.place);
        rpc::ExternalMount { key: target.clone(), value: place.display().to_string() }
    }));
    if !outside.masked.is_empty() {
        let null = "/dev/null".to_owned();
        mounts.push(rpc::ExternalMount { key: null.clone(), value: null });
    }
}

/// Namespaces with a path: network and PID as descriptors, which are returned and must be inherited, others by name.
fn namespaces(outside: &Outside, request: &mut rpc::Options) -> Result<Vec<OwnedFd>> {
    let mut inherited = Vec::new();
    for (kind, path) in &outside.joined {
        let (name, key) = criu::namespace_names(*kind);
        match kind {
            LinuxNamespaceType::Network | LinuxNamespaceType::Pid => {
                let file = fs::File::open(path);
                let file = OwnedFd::from(file.doing(|| format!("join the namespace {}", path.display()))?);
                request.inherit_fd.push(rpc::InheritFd { key: key.to_owned(), fd: file.as_raw_fd() });
                inherited.push(file);
            }
            LinuxNamespaceType::Cgroup => {
                let reason = "criu can't restore into a cgroup namespace that is there already";
                return Err(criu::wrong(format!("join the namespace {}", path.display()), reason));
            }
            _ => {
                let file = path.display().to_string();
                request.join_ns.push(rpc::JoinNamespace { kind: name.to_owned(), file });
            }
        }
    }
    Ok(inherited)
}

/// Pipes that were the container's stdio are replaced by our own.
fn inherit_stdio(images: &Path, request: &mut rpc::Options) -> Result<()> {
    let path = images.join(DESCRIPTORS);
    let doing = || format!("read {}", path.display());
    let json = fs::read(&path).doing(doing)?;
    let names: Vec<String> = serde_json::from_slice(&json).map_err(std::io::Error::from).doing(doing)?;
    for (name, fd) in names.into_iter().zip(0..3).filter(|(name, _)| name.contains("pipe:")) {
        request.inherit_fd.push(rpc::InheritFd { key: name, fd });
    }
    Ok(())
}

/// Where criu is in each hierarchy, controller by controller.
fn cgroup_roots(pid: i32) -> Result<Vec<rpc::CgroupRoot>> {
    let path = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&path).doing(|| format!("read {path}"))?;
    let roots = text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        Some((parts.next()?, parts.next()?))
    });
    let root =
        |name: &str, path: &str| rpc::CgroupRoot { controller: Some(name.to_owned()), path: path.to_owned() };
    Ok(roots.flat_map(|(names, path)| names.split(',').map(move |name| root(name, path))).collect())
}

/// criu, in its own mount namespace.
struct Started {
    session: Session,
    directories: Directories,
    /// Sources of bind mounts that lie in the rootfs.
    moved: Vec<mounts::Moved>,
}

/// Starts criu in a mount namespace of its own, in which the rootfs is mounted in the state directory: on the host
/// nothing is mounted, so nothing can be left behind. Its directories are opened there too: it mounts something in them.
fn start(plan: &Plan, home: &Home, options: &CriuOptions, inherited: &[OwnedFd]) -> Result<Started> {
    let doing = || "make a mount namespace for criu".to_owned();
    let own = OwnedFd::from(fs::File::open("/proc/self/ns/mnt").doing(doing)?);
    let here = fs::File::open(".").doing(doing)?;
    let private = || {
        unshare(Namespaces::MOUNT)?;
        mount::set_propagation(c"/", Propagation::Slave, true)
    };
    let started = (|| {
        private().doing(doing)?;
        let moved = mounts::make_targets(plan)?;
        // A second one: what was mounted to make the targets was only for that.
        setns(own.as_fd(), Namespaces::MOUNT).and_then(|()| private()).doing(doing)?;
        mounts::bind(&plan.rootfs.path, &home.file(ROOT))?;
        let directories = Directories::open(options, LOG, false)?;
        Ok(Started { session: Session::start(inherited)?, directories, moved })
    })();
    // Joining a mount namespace changes the working directory.
    setns(own.as_fd(), Namespaces::MOUNT)
        .and_then(|()| nix::unistd::fchdir(&here).map_err(Into::into))
        .doing(|| "return to our mount namespace".to_owned())?;
    started
}
