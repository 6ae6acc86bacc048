//! `containerd-shim-corten-v2`: see the library.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    corten_shim::main(&corten_shim::Containers)
}
