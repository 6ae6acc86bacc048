//! Names of capabilities that are not known here.
//!
//! A config.json from an engine newer than this runtime may name a capability that only newer kernels have. runtime-spec wants
//! what can't be granted to be a warning. The parser knows a fixed list, so when it fails, the names outside of that are taken out and it
//! gets a second try: a config without such names pays nothing.

use oci_spec::runtime::Capability;
use serde_json::Value;

/// The document without the unknown names, and these; None if it has none.
pub(crate) fn without_unknown(json: &[u8]) -> Option<(Value, Vec<String>)> {
    let mut document: Value = serde_json::from_slice(json).ok()?;
    let mut unknown = Vec::new();
    // In config.json, and in a process.json alone.
    for pointer in ["/process/capabilities", "/capabilities"] {
        let sets = document.pointer_mut(pointer).and_then(Value::as_object_mut);
        for set in sets.into_iter().flat_map(|sets| sets.values_mut()).filter_map(Value::as_array_mut) {
            set.retain(|name| {
                // Anything but a name stays, for the parser to complain about.
                let Some(text) = name.as_str().filter(|text| text.starts_with("CAP_")) else { return true };
                let known = serde_json::from_value::<Capability>(name.clone()).is_ok();
                if !known && !unknown.iter().any(|other| other == text) {
                    unknown.push(text.to_owned());
                }
                known
            });
        }
    }
    (!unknown.is_empty()).then_some((document, unknown))
}
