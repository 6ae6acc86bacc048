//! What a config.json may say that the parser doesn't take.
//!
//! When it fails, what is known to be so is put right and it gets a second try: a config without pays nothing.
//!
//! - A capability that is not in its list: an engine newer than this runtime may name one that only newer kernels have,
//!   and runtime-spec wants what can't be granted to be a warning. Such names are taken out.
//! - SCHED_FLAG_RESET_ON_FORK and SCHED_FLAG_DL_OVERRUN, which oci-spec spells otherwise.
//! - A process without a user, which to other runtimes is root.

use oci_spec::runtime::{Capability, LinuxSchedulerFlag};
use serde_json::{Value, json};

/// The document put right, and the capabilities that were taken out; None if there's nothing to put right.
pub(crate) fn mended(json: &[u8]) -> Option<(Value, Vec<String>)> {
    let mut document: Value = serde_json::from_slice(json).ok()?;
    let mut unknown = Vec::new();
    // In config.json, and in a process.json alone.
    for pointer in ["/process/capabilities", "/capabilities"] {
        let sets = document.pointer_mut(pointer).and_then(Value::as_object_mut);
        for set in sets.into_iter().flat_map(|sets| sets.values_mut()).filter_map(Value::as_array_mut) {
            set.retain(|name| {
                // Anything but a string stays, for the parser to complain about.
                let Some(text) = name.as_str() else { return true };
                let known = serde_json::from_value::<Capability>(name.clone()).is_ok();
                if !known && !unknown.iter().any(|other| other == text) {
                    unknown.push(text.to_owned());
                }
                known
            });
        }
    }
    let mut mended = !unknown.is_empty();
    for pointer in ["/process", ""] {
        let Some(process) = document.pointer_mut(pointer).and_then(Value::as_object_mut) else { continue };
        // Only a process has a working directory: this isn't a config.json itself.
        if process.contains_key("cwd") && !process.contains_key("user") {
            process.insert("user".to_owned(), json!({}));
            mended = true;
        }
        let flags =
            process.get_mut("scheduler").and_then(|s| s.get_mut("flags")).and_then(Value::as_array_mut);
        for flag in flags.into_iter().flatten() {
            let known = match flag.as_str() {
                Some("SCHED_FLAG_RESET_ON_FORK") => LinuxSchedulerFlag::SchedResetOnFork,
                Some("SCHED_FLAG_DL_OVERRUN") => LinuxSchedulerFlag::SchedFlagDLOverrun,
                _ => continue,
            };
            *flag = json!(known);
            mended = true;
        }
    }
    mended.then_some((document, unknown))
}
