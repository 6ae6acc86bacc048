//! Fields that the specification doesn't know: ignored, as it demands, but worth a word when someone debugs.

use oci_spec::runtime::Spec;
use serde_json::Value;

/// The paths of the fields in `json` (a config.json) that nobody will read. Slow: parses and compares everything.
/// Empty if it can't be parsed.
#[must_use]
pub fn unknown_fields(json: &[u8]) -> Vec<String> {
    let Ok(text) = std::str::from_utf8(json) else { return Vec::new() };
    let (Ok(given), Ok(spec)) = (serde_json::from_str::<Value>(text), serde_json::from_str::<Spec>(text))
    else {
        return Vec::new();
    };
    let Ok(understood) = serde_json::to_value(spec) else { return Vec::new() };
    let mut unknown = Vec::new();
    compare(&given, &understood, "", &mut unknown);
    unknown
}

fn compare(given: &Value, understood: &Value, path: &str, unknown: &mut Vec<String>) {
    match (given, understood) {
        (Value::Object(given), Value::Object(understood)) => {
            for (key, value) in given {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match understood.get(key) {
                    Some(same) => compare(value, same, &path, unknown),
                    // "Not given" needn't come back.
                    None if value.is_null() => {}
                    None => unknown.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(understood)) if given.len() == understood.len() => {
            for (index, (value, same)) in given.iter().zip(understood).enumerate() {
                compare(value, same, &format!("{path}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_at_any_depth() {
        let json = br#"{"ociVersion":"1.0.0","rot":{"path":"x"},"hostname":null,
            "mounts":[{"destination":"/a"},{"destination":"/b","flags":3}],
            "linux":{"resources":{"memory":{"limit":5,"limt":6}},"namespaces":[{"type":"pid"}]},
            "annotations":{"any":"thing"}}"#;
        assert_eq!(unknown_fields(json), ["linux.resources.memory.limt", "mounts[1].flags", "rot"]);
        assert_eq!(unknown_fields(b"{"), [""; 0]);
    }
}
