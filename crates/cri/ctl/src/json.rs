//! CRI messages as JSON as Kubernetes people know it: camelCase names, states by name.

use serde::Serialize;
use serde_json::{Map, Value};

/// Members whose keys are data, not names of fields.
const MAPS: [&str; 5] = ["labels", "annotations", "info", "unified", "sysctls"];

/// Converts a message. `state` has the names of its `state` field's values, by number.
pub(crate) fn message<T: Serialize>(message: &T, states: &[&str]) -> Value {
    let mut value = camel(serde_json::to_value(message).unwrap_or_default());
    if let Some(state) = value.get_mut("state") {
        let name = state.as_u64().and_then(|n| states.get(usize::try_from(n).ok()?));
        if let Some(name) = name {
            *state = (*name).into();
        }
    }
    value
}

/// The `info` map of verbose answers: its values are JSON in strings.
pub(crate) fn info(info: &std::collections::HashMap<String, String>) -> Value {
    let parsed = info.iter().map(|(key, text)| {
        let value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
        (key.clone(), value)
    });
    Value::Object(parsed.collect())
}

fn camel(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(camel).collect()),
        Value::Object(members) => {
            let convert = |(key, value): (String, Value)| {
                let value = if MAPS.contains(&key.as_str()) { value } else { camel(value) };
                (camel_case(&key), value)
            };
            Value::Object(members.into_iter().map(convert).collect::<Map<_, _>>())
        }
        other => other,
    }
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut text, word| {
        let mut letters = word.chars();
        text.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        text + letters.as_str()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_converted_but_not_data() {
        let value =
            json!({"image_ref": "x", "labels": {"my_label": "1"}, "state": 1, "a": [{"log_path": 1}]});
        let expected =
            json!({"imageRef": "x", "labels": {"my_label": "1"}, "state": "running", "a": [{"logPath": 1}]});
        assert_eq!(message(&value, &["created", "running"]), expected);
        assert_eq!(message(&json!({"state": 9}), &["created"]), json!({"state": 9}));
    }
}
