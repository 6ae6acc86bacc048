//! `cargo run -p xtask --features codegen -- codegen [--check]`: Rust from proto/.
//!
//! The generated code is committed, so that building Corten needs no protobuf compiler and a reader can look things
//! up. `--check` generates into a scratch directory and fails where the committed code differs.
//! To generate more, add a [`Job`] to [`JOBS`].

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// One set of .proto files that becomes Rust in one crate.
struct Job {
    /// Where imports and `files` are looked up, below the repository's root.
    include: &'static str,
    /// The files to compile, below `include`.
    files: &'static [&'static str],
    /// Where the Rust goes, below the repository's root: one file for each protobuf package.
    out: &'static str,
    /// Turns descriptors into files.
    generate: fn(prost_types::FileDescriptorSet, &Path) -> std::io::Result<()>,
}

const JOBS: &[Job] = &[
    Job {
        include: "proto/cri/v1",
        files: &["api.proto"],
        out: "crates/cri/cri-api/src/generated",
        generate: cri,
    },
    Job {
        include: "proto/corten/v1",
        files: &["corten.proto"],
        out: "crates/cri/cri-api/src/generated",
        generate: corten,
    },
    Job {
        include: "proto",
        files: &[
            "containerd/task/shim.proto",
            "containerd/events/task.proto",
            "containerd/events/forward.proto",
            "containerd/runc/options.proto",
            "containerd/runc/runtimeoptions.proto",
            "containerd/bootstrap/bootstrap.proto",
            "containerd/sandbox/sandbox.proto",
            "containerd/sandbox/config.proto",
            "containerd/types/introspection.proto",
            "containerd/metrics/v1.proto",
            "containerd/metrics/v2.proto",
            "containerd/ttrpc/ttrpc.proto",
            "corten/shim/v1/shim.proto",
        ],
        out: "crates/shim/task-api/src/generated",
        generate: messages,
    },
];

/// CRI: client and server over gRPC. The messages are stored in the daemon's records, hence serde; what a record
/// of an older daemon lacks has its protobuf default.
fn cri(fds: prost_types::FileDescriptorSet, out: &Path) -> std::io::Result<()> {
    const SECRETS: [&str; 4] = ["password", "auth", "identity_token", "registry_token"];
    let mut builder = tonic_prost_build::configure()
        .message_attribute(".", "#[derive(serde::Serialize, serde::Deserialize)]\n#[serde(default)]")
        .skip_debug(["AuthConfig"]);
    for field in SECRETS {
        builder = builder.field_attribute(format!("AuthConfig.{field}"), "#[serde(skip_serializing)]");
    }
    grpc(builder, fds, out)
}

/// Corten's own services beside CRI.
fn corten(fds: prost_types::FileDescriptorSet, out: &Path) -> std::io::Result<()> {
    grpc(tonic_prost_build::configure().skip_debug(["PullRequest"]), fds, out)
}

/// Messages alone: ttrpc's services are dispatched by hand.
fn messages(fds: prost_types::FileDescriptorSet, out: &Path) -> std::io::Result<()> {
    prost_build::Config::new().out_dir(out).compile_fds(fds)
}

/// gRPC through tonic; RPCs a server doesn't implement answer Unimplemented.
fn grpc(
    builder: tonic_prost_build::Builder,
    fds: prost_types::FileDescriptorSet,
    out: &Path,
) -> std::io::Result<()> {
    builder.build_transport(false).generate_default_stubs(true).out_dir(out).compile_fds(fds)
}

/// Runs all jobs; with `check`, only compares.
pub(crate) fn run(check: bool) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the repository")?;
    let mut stale = Vec::new();
    for job in JOBS {
        let include = root.join(job.include);
        let mut compiler =
            protox::Compiler::new([&include]).with_context(|| format!("open {}", job.include))?;
        compiler.include_source_info(true).include_imports(true);
        for file in job.files {
            compiler
                .open_file(include.join(file))
                .with_context(|| format!("compile {}/{file}", job.include))?;
        }
        let scratch = scratch_dir()?;
        let done = (job.generate)(compiler.file_descriptor_set(), &scratch)
            .with_context(|| format!("generate {}", job.out))
            .and_then(|()| take_over(&scratch, &root.join(job.out), check));
        let _ = fs::remove_dir_all(&scratch);
        stale.extend(done?);
    }
    if check && !stale.is_empty() {
        bail!("generated code is stale (run codegen without --check): {stale:?}");
    }
    for file in stale {
        println!("wrote {}", file.display());
    }
    Ok(())
}

/// Moves what was generated to where it is committed; returns what differed. Changes nothing with `check`.
fn take_over(scratch: &Path, out: &Path, check: bool) -> Result<Vec<PathBuf>> {
    let mut differing = Vec::new();
    fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
    for entry in fs::read_dir(scratch).with_context(|| format!("list {}", scratch.display()))? {
        let entry = entry?;
        let new = fs::read(entry.path())?;
        if new.is_empty() {
            continue;
        }
        let target = out.join(entry.file_name());
        if fs::read(&target).is_ok_and(|old| old == new) {
            continue;
        }
        if !check {
            fs::write(&target, new).with_context(|| format!("write {}", target.display()))?;
        }
        differing.push(target);
    }
    Ok(differing)
}

fn scratch_dir() -> Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("corten-codegen-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    Ok(dir)
}
