//! What lists are filtered by. All parts of a filter must fit.

use std::collections::HashMap;

/// Whether an id is the wanted one; an empty wish fits all.
pub(super) fn id(wanted: &str, id: &str) -> bool {
    wanted.is_empty() || wanted == id
}

/// Whether all wanted labels are there with their values.
pub(super) fn labels(wanted: &HashMap<String, String>, labels: &HashMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}
