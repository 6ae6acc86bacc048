//! What a guest is made of: Debian's cloud kernel, an initial RAM disk that finds the root disk, and the root disk.
//!
//! All of it comes from the machine's own package sources and is kept in target/vm until the recipe changes.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::guest::Guest;
use crate::run::{output, run};

/// What is installed in a guest.
const PACKAGES: [&str; 24] = [
    "apparmor",
    "attr",
    "busybox-static",
    "ca-certificates",
    "criu",
    "crun",
    "dbus",
    "dbus-user-session",
    "e2fsprogs",
    "iproute2",
    "iptables",
    "keyutils",
    "kmod",
    "libpam-systemd",
    "mount",
    "nftables",
    "passwd",
    "procps",
    "runc",
    "secilc",
    "strace",
    "systemd",
    "systemd-sysv",
    "uidmap",
];

/// Units that only cost time.
const MASKED: [&str; 19] = [
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "systemd-firstboot.service",
    "systemd-journal-flush.service",
    "systemd-machine-id-commit.service",
    "systemd-network-generator.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-timesyncd.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-udev-trigger.service",
    "systemd-update-utmp.service",
];

/// Modules that the root disk and the ports to the host need, in the order in which they are loaded.
const MODULES: [&str; 7] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
];

const INITRD: &str = include_str!("guest/initrd.sh");
const INIT: &str = include_str!("guest/init.sh");
const JOB: &str = include_str!("guest/job.sh");
const SERVICE: &str = include_str!("guest/job.service");
const POLICY: &str = include_str!("guest/policy.cil");

/// The parts of a guest, as files.
#[derive(Debug, Clone)]
pub(super) struct Image {
    /// The kernel.
    pub(super) kernel: PathBuf,
    /// The root disk. Guests never write to it.
    pub(super) disk: PathBuf,
    initrd: PathBuf,
}

impl Image {
    /// The image in `dir`; made first (half a minute) if there is none of this recipe.
    pub(super) fn ready(dir: &Path) -> Result<Self> {
        let place = dir.join(format!("image-{:016x}", recipe()));
        let image = Self {
            kernel: place.join("vmlinuz"),
            disk: place.join("root.ext4"),
            initrd: place.join("initrd"),
        };
        if place.is_dir() {
            return Ok(image);
        }
        let started = Instant::now();
        // Old recipes, and what an interrupted run left.
        if dir.exists() {
            fs::remove_dir_all(dir).with_context(|| format!("can't remove {}", dir.display()))?;
        }
        let making = dir.join("making");
        fs::create_dir_all(&making).with_context(|| format!("can't make {}", making.display()))?;
        make(&making)?;
        fs::rename(&making, &place).context("can't put the image in place")?;
        eprintln!("made the guests' image in {:.0} s", started.elapsed().as_secs_f64());
        Ok(image)
    }

    /// Writes the initial RAM disk of one guest: the common one, and behind it the name of its init.
    pub(super) fn write_initrd(&self, path: &Path, guest: Guest) -> Result<()> {
        let dir = path.with_extension("d");
        fs::create_dir(&dir).with_context(|| format!("can't make {}", dir.display()))?;
        fs::write(dir.join("init-of-this-guest"), guest.program())?;
        let mut whole = fs::read(&self.initrd).context("can't read the initial RAM disk")?;
        whole.extend(archive(&dir)?);
        fs::write(path, whole).with_context(|| format!("can't write {}", path.display()))
    }
}

/// A number that changes with whatever goes into the image.
fn recipe() -> u64 {
    let mut hasher = DefaultHasher::new();
    (PACKAGES, MASKED, MODULES, INITRD, INIT, JOB, SERVICE, POLICY, include_str!("image.rs"))
        .hash(&mut hasher);
    hasher.finish()
}

fn make(dir: &Path) -> Result<()> {
    run(Command::new("apt-get").args(["update", "-q"]).stdin(Stdio::null()).stdout(Stdio::null()))?;
    let kernel = dir.join("kernel");
    let version = unpack_kernel(&kernel)?;
    let modules = kernel.join("lib/modules").join(&version);
    fs::rename(kernel.join("boot").join(format!("vmlinuz-{version}")), dir.join("vmlinuz"))?;
    make_initrd(&dir.join("initrd.d"), &modules, &dir.join("initrd"))?;

    let root = dir.join("root");
    install_root(&root)?;
    fs::create_dir_all(root.join("lib/modules"))?;
    fs::rename(&modules, root.join("lib/modules").join(&version)).context("can't move the modules")?;
    run(Command::new("chroot").arg(&root).args(["depmod", &version]))?;
    furnish(&root)?;
    // Sparse, and without a journal: it is never written to.
    run(Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-O", "verity,^has_journal", "-E", "lazy_itable_init=1,nodiscard", "-d"])
        .args([&root, &dir.join("root.ext4")])
        .arg("4G"))?;
    for done in [root, kernel, dir.join("initrd.d")] {
        fs::remove_dir_all(&done).with_context(|| format!("can't remove {}", done.display()))?;
    }
    Ok(())
}

/// Unpacks Debian's cloud kernel below `dir` and returns its version.
fn unpack_kernel(dir: &Path) -> Result<String> {
    fs::create_dir(dir)?;
    let depends =
        output(Command::new("apt-cache").args(["depends", "--important", "linux-image-cloud-amd64"]))?;
    let depends = String::from_utf8(depends)?;
    let Some(package) = depends.split_whitespace().find(|word| word.starts_with("linux-image-6")) else {
        bail!("no kernel among the packages: linux-image-cloud-amd64 depends on\n{depends}");
    };
    // As root apt would drop its privileges for the download, to a user that can't write here.
    let sandbox = "APT::Sandbox::User=root";
    run(Command::new("apt-get").args(["download", "-q", "-o", sandbox, package]).current_dir(dir))?;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg-deb").arg("-x").args([&path, dir]))?;
            fs::remove_file(&path)?;
        }
    }
    Ok(package.trim_start_matches("linux-image-").to_owned())
}

fn make_initrd(dir: &Path, modules: &Path, path: &Path) -> Result<()> {
    for below in ["bin", "proc", "sys", "dev", "root", "modules"] {
        fs::create_dir_all(dir.join(below))?;
    }
    fs::copy("/bin/busybox", dir.join("bin/busybox")).context("busybox-static isn't installed")?;
    let order = fs::read_to_string(modules.join("modules.order")).context("the kernel lists no modules")?;
    for (index, name) in MODULES.iter().enumerate() {
        let file = format!("{name}.ko");
        // One that isn't listed is built in.
        if let Some(line) = order.lines().find(|line| line.rsplit('/').next() == Some(&file)) {
            fs::copy(modules.join(line), dir.join("modules").join(format!("{index}-{file}")))
                .with_context(|| format!("can't copy the module {line}"))?;
        }
    }
    write_program(&dir.join("init"), INITRD)?;
    fs::write(path, archive(dir)?).context("can't write the initial RAM disk")
}

/// Installs the guest's packages from the machine's own package sources.
fn install_root(root: &Path) -> Result<()> {
    let format = "deb $(REPO_URI) $(RELEASE) $(COMPONENT)";
    let targets = output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        format,
        "Created-By: Packages",
        "Origin: Debian",
    ]))?;
    let mut sources: Vec<String> = String::from_utf8(targets)?.lines().map(str::to_owned).collect();
    sources.sort();
    sources.dedup();
    let release = fs::read_to_string("/etc/os-release").context("is this a Debian machine?")?;
    let codename =
        release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or("stable");
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--mode=root", "--variant=essential"]);
    command.arg(format!("--include={}", PACKAGES.join(",")));
    command.arg("--aptopt=APT::Install-Recommends \"false\"");
    for unread in ["doc", "man", "locale"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{unread}/*"));
    }
    command.arg(codename).arg(root);
    command.args(sources.iter().map(|line| line.replacen("deb ", &format!("deb [signed-by={KEYRING}] "), 1)));
    run(command.stdin(Stdio::null()))
}

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Adds what isn't from a package.
fn furnish(root: &Path) -> Result<()> {
    let units = root.join("etc/systemd/system");
    for unit in MASKED {
        symlink("/dev/null", units.join(unit)).with_context(|| format!("can't mask {unit}"))?;
    }
    fs::write(units.join("vm-job.service"), SERVICE)?;
    fs::write(root.join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n")?;
    fs::write(root.join("etc/hostname"), "vmtest\n")?;
    write_program(&root.join("sbin/vm-init"), INIT)?;
    write_program(&root.join("sbin/vm-job"), JOB)?;
    fs::create_dir_all(root.join("job"))?;
    // Not where systemd would look for one.
    fs::create_dir_all(root.join("etc/vm"))?;
    fs::write(root.join("etc/vm/policy.cil"), POLICY)?;
    let mut secilc = Command::new("chroot");
    run(secilc.arg(root).args(["secilc", "-o", "/etc/vm/policy", "-f", "/dev/null", "/etc/vm/policy.cil"]))?;
    // Somebody who isn't root, with ids of their own to map.
    run(Command::new("chroot").arg(root).args(["useradd", "--create-home", "--shell", "/bin/bash", "user"]))
}

fn write_program(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("can't write {}", path.display()))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// The files below `dir` as the kernel unpacks them (cpio, "newc").
fn archive(dir: &Path) -> Result<Vec<u8>> {
    let names = output(Command::new("find").arg(".").current_dir(dir))?;
    let mut child = Command::new("busybox")
        .args(["cpio", "-o", "-H", "newc"])
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("can't start busybox cpio")?;
    // The list is far smaller than a pipe's buffer.
    child.stdin.take().context("no standard input")?.write_all(&names)?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("busybox cpio: {}", output.status);
    }
    Ok(output.stdout)
}
