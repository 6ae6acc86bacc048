//! `cargo xtask layers`: dependencies point downwards (docs/architecture.md).

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run::{cargo, output, root};

/// What the crates of a folder may use. A crate may also use its neighbours in the folder.
const ALLOWED: [(&str, &[&str]); 5] = [
    ("kernel", &[]),
    ("runtime", &["kernel"]),
    ("shim", &["kernel", "runtime/bundle", "runtime/cgroups"]),
    ("image", &["kernel"]),
    ("cri", &["kernel", "image", "shim", "runtime/bundle", "runtime/cgroups"]),
];

/// Edges that are wrong although their layers are not.
const FORBIDDEN: [(&str, &str, &str); 2] = [
    ("cri/ctl", "cri/server", "cortenctl speaks only public APIs"),
    ("cri/ctl", "cri/daemon", "cortenctl speaks only public APIs"),
];

/// Fails on the first edges that point upwards or sideways.
pub(crate) fn check() -> Result<()> {
    let metadata = output(&mut cargo(&["metadata", "--format-version", "1", "--no-deps", "--locked"]))?;
    let metadata: Value =
        serde_json::from_slice(&metadata).context("cargo metadata printed something else than JSON")?;
    let mut wrong = Vec::new();
    let mut edges = 0;
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let Some(from) = crate_path(&package["manifest_path"]) else { continue };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            // A dev-dependency doesn't reach anybody who embeds the crate.
            let Some(to) = crate_path(&dependency["path"]).filter(|_| dependency["kind"] != "dev") else {
                continue;
            };
            edges += 1;
            if let Some(why) = objection(&from, &to) {
                wrong.push(format!("crates/{from} must not use crates/{to}: {why}"));
            }
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    eprintln!("layers: {edges} edges, all of them downwards");
    Ok(())
}

/// `layer/crate` of a path below crates/, None for others (tests and tools may use anything).
fn crate_path(path: &Value) -> Option<String> {
    let path = path.as_str()?.trim_end_matches("/Cargo.toml");
    Some(path.strip_prefix(root().to_str()?)?.strip_prefix("/crates/")?.to_owned())
}

fn objection(from: &str, to: &str) -> Option<String> {
    if let Some((_, _, why)) = FORBIDDEN.iter().find(|(f, t, _)| *f == from && *t == to) {
        return Some((*why).to_owned());
    }
    let layer = from.split('/').next()?;
    let allowed = ALLOWED.iter().find(|(name, _)| *name == layer).map_or(&[][..], |(_, allowed)| allowed);
    let below = |name: &str| to == name || to.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
    if below(layer) || allowed.iter().any(|name| below(name)) {
        return None;
    }
    Some(format!("{layer} may use itself and {allowed:?}"))
}

#[cfg(test)]
mod tests {
    use super::objection;

    #[test]
    fn edges_downwards_pass_and_others_do_not() {
        assert_eq!(objection("runtime/container", "kernel/sys"), None);
        assert_eq!(objection("runtime/cli", "runtime/container"), None);
        assert_eq!(objection("cri/server", "shim/task"), None);
        assert!(objection("kernel/state", "runtime/bundle").is_some());
        assert!(objection("shim/shim", "runtime/container").is_some());
        assert!(objection("image/image", "shim/task").is_some());
        assert!(objection("shim/task", "image/image").is_some());
        assert!(objection("cri/ctl", "cri/server").is_some());
    }
}
