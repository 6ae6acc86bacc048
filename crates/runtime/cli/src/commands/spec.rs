//! `spec`: a config.json to start from.

use std::fs::OpenOptions;
use std::io::Write;

use anyhow::{Context, Result, bail};
use oci_spec::runtime::Spec as Config;

use crate::args::Spec;

pub(crate) fn run(options: &Spec) -> Result<()> {
    if options.rootless {
        bail!("spec --rootless is not supported yet");
    }
    let path = options.bundle.join("config.json");
    // Never over an existing one: it may be all there is of somebody's work.
    let file = OpenOptions::new().write(true).create_new(true).open(&path);
    let mut file = file.with_context(|| format!("can't create {}", path.display()))?;
    let text = serde_json::to_string_pretty(&Config::default())?;
    writeln!(file, "{text}").with_context(|| format!("can't write {}", path.display()))
}
