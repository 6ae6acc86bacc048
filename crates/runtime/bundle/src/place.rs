//! From a place in a JSON text to the path of the field there.
//!
//! serde_json says at which line and column a document went wrong; in a config.json of a thousand lines a path such as
//! `linux.namespaces[2].type` says it to a person.

/// The path of the field that ends at or contains the byte at `line` and `column` (both from 1); empty for the document.
pub(crate) fn field_at(json: &[u8], line: usize, column: usize) -> String {
    // A type error is reported at the end of the value, a missing field at the end of the object that lacks it.
    let end = offset(json, line, column);
    let mut scan = Scan { json: &json[..end], at: 0, path: Vec::new() };
    scan.run();
    scan.path()
}

fn offset(json: &[u8], line: usize, column: usize) -> usize {
    let before: usize =
        json.split_inclusive(|byte| *byte == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    (before + column.saturating_sub(1)).min(json.len())
}

/// Where one is within an object or an array.
enum Step {
    Key(String),
    Index(usize),
}

struct Scan<'a> {
    json: &'a [u8],
    at: usize,
    path: Vec<Step>,
}

impl Scan<'_> {
    /// Goes through what there is of the text, however broken it is.
    fn run(&mut self) {
        while let Some(byte) = self.json.get(self.at).copied() {
            self.at += 1;
            match byte {
                b'{' => self.path.push(Step::Key(String::new())),
                b'[' => self.path.push(Step::Index(0)),
                b'}' | b']' => drop(self.path.pop()),
                b',' => match self.path.last_mut() {
                    Some(Step::Index(index)) => *index += 1,
                    // The next string is a key.
                    Some(Step::Key(key)) => key.clear(),
                    None => {}
                },
                b'"' => {
                    let text = self.string();
                    if let Some(Step::Key(key)) = self.path.last_mut()
                        && key.is_empty()
                    {
                        *key = text;
                    }
                }
                _ => {}
            }
        }
    }

    /// The string that begins here, up to its closing quote or the end of the text. Escapes are left as they are.
    fn string(&mut self) -> String {
        let start = self.at;
        while let Some(byte) = self.json.get(self.at) {
            match byte {
                b'\\' => self.at += 2,
                b'"' => break,
                _ => self.at += 1,
            }
        }
        let end = self.at.min(self.json.len());
        self.at = end + 1;
        String::from_utf8_lossy(&self.json[start.min(end)..end]).into_owned()
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Key(key) if key.is_empty() => {}
                Step::Key(key) if path.is_empty() => path.push_str(key),
                Step::Key(key) => {
                    path.push('.');
                    path.push_str(key);
                }
                Step::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use oci_spec::runtime::Spec;

    fn error(json: &str) -> String {
        crate::parse::<Spec>(json.as_bytes(), Path::new("config.json")).expect_err("wrong").to_string()
    }

    #[test]
    fn an_ill_typed_field_is_named() {
        let json = r#"{"ociVersion": "1.0.2", "root": {"path": "rootfs"},
            "mounts": [{"destination": "/a"}, {"destination": "/b", "options": ["ro", 5]}]}"#;
        assert_eq!(error(json), "invalid config.json at mounts[1].options[1]");
        let json = "{\"ociVersion\": \"1.0.2\",\n \"process\": {\"cwd\": \"/\", \"terminal\": \"yes\"}}";
        assert_eq!(error(json), "invalid config.json at process.terminal");
    }

    #[test]
    fn a_document_that_ends_too_early_is_told_where() {
        assert_eq!(error(r#"{"ociVersion": "1.0.2", "linux": {"namespaces": [{"type": "pid"}, "#), {
            "invalid config.json at linux.namespaces[1]"
        });
        assert_eq!(error(""), "invalid config.json");
        assert_eq!(error("\"\\"), "invalid config.json");
    }

    #[test]
    fn any_place_in_any_text_has_an_answer() {
        let json = br#"{"a\"b": [1, {"c": "d\\"}, [[]]], "e": {}} }]],"#;
        for line in 0..4 {
            for column in 0..json.len() + 3 {
                super::field_at(json, line, column);
            }
        }
    }
}
