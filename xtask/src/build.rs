//! `cargo xtask build`: the binaries as they are shipped, in target/bin.
//!
//! What is started for every container is static and small, the rest is an ordinary release build: see
//! docs/decisions/0001-static-binaries.md.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{cargo, output, root, run};

const STATIC: [(&str, &str); 3] = [
    ("corten-cli", "corten"),
    ("corten-shim", "containerd-shim-corten-v2"),
    ("integration-workload", "workload"),
];
/// The linker script that `hot` writes.
pub(crate) const HOT: &str = "crates/runtime/cli/hot.ld";
const DYNAMIC: [(&str, &str); 2] = [("corten-daemon", "cortend"), ("corten-ctl", "cortenctl")];

/// What has failpoints (crates/kernel/state/src/failpoint.rs).
const FAILPOINTS: [(&str, &str); 2] = [STATIC[0], STATIC[1]];

/// Builds everything and returns the directory that holds the binaries.
pub(crate) fn build() -> Result<PathBuf> {
    let target = host()?;
    let mut command = cargo(&["build", "--profile", "static", "--target", &target]);
    run(linked_statically(&mut command, &target).args(packages(&STATIC)))?;
    run(cargo(&["build", "--release"]).args(packages(&DYNAMIC)))?;

    let target_dir = target_dir();
    let bin = target_dir.join("bin");
    std::fs::create_dir_all(&bin).with_context(|| format!("can't create {}", bin.display()))?;
    for (_, name) in STATIC {
        install(&target_dir.join(&target).join("static").join(name), &bin.join(name))?;
        strip(&bin.join(name))?;
    }
    for (_, name) in DYNAMIC {
        install(&target_dir.join("release").join(name), &bin.join(name))?;
    }
    Ok(bin)
}

/// Builds the runtime and the shim with failpoints into target/bin/failpoints. They are for tests only, so they needn't
/// be optimised.
pub(crate) fn failpoints() -> Result<()> {
    let target = host()?;
    let bin = target_dir().join("bin/failpoints");
    std::fs::create_dir_all(&bin).with_context(|| format!("can't create {}", bin.display()))?;
    for (package, name) in FAILPOINTS {
        let mut command =
            cargo(&["rustc", "--target", &target, "--package", package, "--features", "failpoints"]);
        // Stripped: `corten` copies itself into memory before it meets a container.
        run(linked_statically(&mut command, &target).args(["--bin", name, "--", "-C", "strip=symbols"]))?;
        install(&target_dir().join(&target).join("debug").join(name), &bin.join(name))?;
    }
    Ok(())
}

/// Static at a fixed address, so that nothing has to be relocated at start-up: docs/decisions/0012-start-up.md. The flags are
/// the target's, not RUSTFLAGS, and --target is given: build scripts and proc macros stay dynamic.
fn linked_statically<'a>(command: &'a mut Command, target: &str) -> &'a mut Command {
    let variable = format!("CARGO_TARGET_{}_RUSTFLAGS", target.to_uppercase().replace('-', "_"));
    let mut flags =
        "-C target-feature=+crt-static -C relocation-model=static -C symbol-mangling-version=v0".to_owned();
    if target.starts_with("x86_64") {
        // The toolchain's own linker there, whatever else is configured: it knows what the script asks for.
        flags += " -C link-arg=-fuse-ld=lld";
        command.env("CORTEN_LINK_SCRIPT", root().join(HOT));
    }
    command.env(variable, flags)
}

/// Builds `corten` alone (and what rootfs are made of); returns where it is, with the names of its functions.
pub(crate) fn corten_unstripped() -> Result<PathBuf> {
    let target = host()?;
    let mut command = cargo(&["build", "--profile", "static", "--target", &target]);
    run(linked_statically(&mut command, &target).args(packages(&[STATIC[0], STATIC[2]])))?;
    let (built, bin) = (target_dir().join(target).join("static"), target_dir().join("bin"));
    std::fs::create_dir_all(&bin).with_context(|| format!("can't create {}", bin.display()))?;
    install(&built.join("workload"), &bin.join("workload"))?;
    Ok(built.join("corten"))
}

/// Takes the names away, which `static` keeps for `hot` and for debuggers.
fn strip(binary: &Path) -> Result<()> {
    run(Command::new("strip").arg(binary))?;
    let bytes = std::fs::read(binary).with_context(|| format!("can't read {}", binary.display()))?;
    let new = binary.with_extension("new");
    write_in_pages(&bytes, &new).with_context(|| format!("can't write {}", new.display()))?;
    std::fs::set_permissions(&new, std::fs::metadata(binary)?.permissions())?;
    std::fs::rename(&new, binary).with_context(|| format!("can't write {}", binary.display()))
}

/// Writes page by page. What is written in one piece is cached in one piece, and a process that touches a byte of it gets
/// all of it mapped, until the cache has been dropped and read again: some 80 KiB more of `corten` just after it was built.
fn write_in_pages(bytes: &[u8], path: &Path) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    bytes.chunks(4096).try_for_each(|page| file.write_all(page))
}

fn packages(list: &[(&'static str, &'static str)]) -> Vec<&'static str> {
    list.iter().flat_map(|(package, _)| ["--package", package]).collect()
}

/// Where cargo puts things.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The triple that this machine compiles for.
pub(crate) fn host() -> Result<String> {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let text = String::from_utf8(output(rustc.arg("-vV"))?)?;
    match text.lines().find_map(|line| line.strip_prefix("host: ")) {
        Some(host) => Ok(host.to_owned()),
        None => bail!("rustc -vV names no host:\n{text}"),
    }
}

/// Copies a binary beside the others, by rename: an older copy may be running.
fn install(from: &Path, to: &Path) -> Result<()> {
    let new = to.with_extension("new");
    let size = std::fs::copy(from, &new).with_context(|| format!("can't copy {}", from.display()))?;
    std::fs::rename(&new, to).with_context(|| format!("can't write {}", to.display()))?;
    eprintln!("  {:>7.2} MB  {}", size as f64 / 1e6, to.display());
    Ok(())
}
