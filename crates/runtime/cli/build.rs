//! Where the static program begins: corten-sys's early.rs.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, wanted: &str| {
        std::env::var(name).is_ok_and(|value| value.split(',').any(|word| word == wanted))
    };
    if is("CARGO_CFG_TARGET_ARCH", "x86_64") && is("CARGO_CFG_TARGET_FEATURE", "crt-static") {
        println!("cargo::rustc-link-arg-bins=-Wl,-e,corten_start");
    }
    // Set by `cargo xtask build`, which also picks a linker that can read it.
    println!("cargo::rerun-if-env-changed=CORTEN_LINK_SCRIPT");
    if let Some(script) = std::env::var_os("CORTEN_LINK_SCRIPT").map(std::path::PathBuf::from)
        && script.is_file()
    {
        println!("cargo::rerun-if-changed={}", script.display());
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", script.display());
    }
}
