//! From a place in a JSON text to the path of the field there, as `linux.namespaces[2].type`.
//!
//! Only for error messages: serde knows line and column, a human also wants the name.

/// The path of the field that ends at or contains the byte at `line` and `column` (both from 1; the column counts
/// bytes, and points at the last byte that was read). Empty at the outermost level.
pub(crate) fn field_at(json: &[u8], line: usize, column: usize) -> String {
    let end = offset(json, line, column).min(json.len());
    let mut scanner = Scanner { path: Vec::new(), expect_key: false };
    let mut at = 0;
    while at < end {
        at = scanner.step(json, at, end);
    }
    scanner.show()
}

fn offset(json: &[u8], line: usize, column: usize) -> usize {
    let before: usize =
        json.split(|b| *b == b'\n').take(line.saturating_sub(1)).map(|line| line.len() + 1).sum();
    before + column
}

/// Where in the document: one level per open object or array.
enum Level {
    /// The current key; None until the first is read.
    Object(Option<String>),
    /// The current index.
    Array(usize),
}

struct Scanner {
    path: Vec<Level>,
    expect_key: bool,
}

impl Scanner {
    /// Takes in what begins at `at`; returns where the next begins.
    fn step(&mut self, json: &[u8], at: usize, end: usize) -> usize {
        match json[at] {
            b'{' => {
                self.path.push(Level::Object(None));
                self.expect_key = true;
            }
            b'[' => {
                self.path.push(Level::Array(0));
                self.expect_key = false;
            }
            b'}' | b']' => {
                self.path.pop();
                self.expect_key = false;
            }
            b',' => match self.path.last_mut() {
                Some(Level::Array(index)) => *index += 1,
                Some(Level::Object(key)) => {
                    // What follows is another field, whose name isn't known yet.
                    *key = None;
                    self.expect_key = true;
                }
                None => {}
            },
            b'"' => return self.string(json, at, end),
            _ => {}
        }
        at + 1
    }

    fn string(&mut self, json: &[u8], at: usize, end: usize) -> usize {
        let mut close = at + 1;
        while close < end && json[close] != b'"' {
            close += if json[close] == b'\\' { 2 } else { 1 };
        }
        if self.expect_key
            && let Some(Level::Object(key)) = self.path.last_mut()
        {
            *key = Some(String::from_utf8_lossy(&json[at + 1..close.min(json.len())]).into_owned());
            self.expect_key = false;
        }
        close + 1
    }

    fn show(&self) -> String {
        let mut text = String::new();
        for level in &self.path {
            match level {
                Level::Array(index) => text += &format!("[{index}]"),
                Level::Object(None) => {}
                Level::Object(Some(key)) => {
                    if !text.is_empty() {
                        text.push('.');
                    }
                    text += key;
                }
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The place of the character ^.
    fn at_mark(json: &str) -> String {
        let before = &json[..json.find('^').expect("a mark")];
        let line = before.matches('\n').count() + 1;
        let column = before.len() - before.rfind('\n').map_or(0, |newline| newline + 1);
        field_at(json.replace('^', "").as_bytes(), line, column)
    }

    #[test]
    fn table() {
        for (json, expected) in [
            ("{^}", ""),
            (r#"{"a": 1^}"#, "a"),
            (r#"{"a": 1, "b": {"c": "x"^}}"#, "b.c"),
            ("{\"a\": 1,\n \"b\": {\"c\":\n [1, {\"d\": true^}]}}", "b.c[1].d"),
            (r#"{"a": {"x": 1}, "b": [[], [5, "q^"]]}"#, "b[1][1]"),
            (r#"{"a": "with \" quote, and }", "b": nul^l}"#, "b"),
            // A missing field is told at the end of the object that misses it.
            (r#"{"process": {"cwd": "/"}^}"#, "process"),
            (r#"{"a": [1, 2^"#, "a[1]"),
            ("^", ""),
        ] {
            assert_eq!(at_mark(json), expected, "{json}");
        }
        assert_eq!(field_at(b"{}", 99, 99), "");
    }
}
