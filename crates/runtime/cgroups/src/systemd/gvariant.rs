//! Annotations `org.systemd.property.<Name>`: properties for the unit, whose values are in GVariant's text format
//! (<https://docs.gtk.org/glib/gvariant-text-format.html>).

use std::collections::BTreeMap;

use super::value::{Value, is_type};
use crate::{Error, Result};

const PREFIX: &str = "org.systemd.property.";

/// The properties among the annotations, in the order of their names.
///
/// `<Name>Sec`, with a number of seconds, is `<Name>USec` with microseconds, as in unit files.
pub(crate) fn properties(annotations: &BTreeMap<String, String>) -> Result<Vec<(String, Value)>> {
    let ours = annotations.iter().filter_map(|(key, text)| Some((key, key.strip_prefix(PREFIX)?, text)));
    ours.map(|(key, name, text)| {
        let error = |reason: &str| Error::Annotation {
            key: key.clone(),
            value: text.clone(),
            reason: reason.to_owned(),
        };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(error("that is no property's name"));
        }
        let value =
            parse(text).ok_or_else(|| error("that isn't GVariant text, like 'string' or uint64 5"))?;
        match name.strip_suffix("Sec").filter(|name| !name.ends_with('U')) {
            Some(stem) => {
                let value = microseconds(&value).ok_or_else(|| error("that is no number of seconds"))?;
                Ok((format!("{stem}USec"), Value::U64(value)))
            }
            None => Ok((name.to_owned(), value)),
        }
    })
    .collect()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast of a float saturates")]
fn microseconds(value: &Value) -> Option<u64> {
    const MILLION: u64 = 1_000_000;
    let whole = match value {
        Value::Byte(seconds) => u64::from(*seconds),
        Value::I16(seconds) => u64::try_from(*seconds).ok()?,
        Value::U16(seconds) => u64::from(*seconds),
        Value::I32(seconds) => u64::try_from(*seconds).ok()?,
        Value::U32(seconds) => u64::from(*seconds),
        Value::I64(seconds) => u64::try_from(*seconds).ok()?,
        Value::U64(seconds) => *seconds,
        Value::Double(seconds) if *seconds >= 0.0 => return Some((seconds * 1e6) as u64),
        _ => return None,
    };
    whole.checked_mul(MILLION)
}

/// The value that a text stands for.
pub(crate) fn parse(text: &str) -> Option<Value> {
    let mut parser = Parser { rest: text.trim_start() };
    let value = parser.value(None, 0)?;
    (parser.rest.trim().is_empty() && is_short(&value)).then_some(value)
}

/// Whether its signature can be said in a message, which has a byte for the length.
fn is_short(value: &Value) -> bool {
    u8::try_from(value.signature().len()).is_ok()
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn eat(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Letters, digits and what numbers are made of.
    fn word(&mut self) -> Option<String> {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && !"+-._".contains(c));
        let (word, rest) = self.rest.split_at_checked(end.unwrap_or(self.rest.len()))?;
        self.rest = rest;
        (!word.is_empty()).then(|| word.to_owned())
    }

    /// A value; of the type `wanted`, if it is given.
    fn value(&mut self, wanted: Option<&str>, depth: u32) -> Option<Value> {
        self.rest = self.rest.trim_start();
        if depth > 16 {
            return None;
        }
        match self.rest.chars().next()? {
            '@' => {
                let end = self.rest.find(char::is_whitespace)?;
                let signature = self.rest.get(1..end)?.to_owned();
                self.rest = self.rest.get(end..)?;
                is_type(&signature).then(|| self.value(Some(&signature), depth + 1))?
            }
            '[' => {
                let element = wanted.map(|wanted| wanted.strip_prefix('a'));
                self.array(element.map_or(Some(None), |element| element.map(Some))?, depth)
            }
            '(' => self.structure(depth),
            '<' => {
                self.eat("<");
                let value = self.value(None, depth + 1)?;
                (self.eat(">") && is_short(&value)).then(|| value.variant())
            }
            '\'' | '"' => {
                let text = self.string()?;
                Some(match wanted {
                    Some("o") => Value::Path(text),
                    Some("g") => Value::Signature(text),
                    None | Some("s") => Value::String(text),
                    Some(_) => return None,
                })
            }
            'b' if self.rest.starts_with("b'") || self.rest.starts_with("b\"") => {
                self.eat("b");
                // With its final zero.
                let bytes = self.string()?.into_bytes().into_iter().chain([0]).map(Value::Byte).collect();
                Some(Value::Array("y".to_owned(), bytes))
            }
            _ => self.named_or_number(wanted, depth),
        }
    }

    fn named_or_number(&mut self, wanted: Option<&str>, depth: u32) -> Option<Value> {
        let word = self.word()?;
        let kind = match &*word {
            "true" => return Some(Value::Bool(true)),
            "false" => return Some(Value::Bool(false)),
            "boolean" => "b",
            "byte" => "y",
            "int16" => "n",
            "uint16" => "q",
            "int32" => "i",
            "uint32" => "u",
            "int64" => "x",
            "uint64" => "t",
            "double" => "d",
            "string" => "s",
            "objectpath" => "o",
            "signature" => "g",
            number => return self::number(number, wanted),
        };
        self.value(Some(kind), depth + 1)
    }

    fn array(&mut self, element: Option<&str>, depth: u32) -> Option<Value> {
        self.eat("[");
        let mut values: Vec<Value> = Vec::new();
        while !self.eat("]") {
            if !values.is_empty() && !self.eat(",") {
                return None;
            }
            // What the first is said to be, all are.
            let first = values.first().map(Value::signature);
            values.push(self.value(first.as_deref().or(element), depth + 1)?);
        }
        // An empty one says nothing of its type: it has to be said.
        let element = values.first().map(Value::signature).or_else(|| element.map(str::to_owned))?;
        values.iter().all(|value| value.signature() == element).then_some(Value::Array(element, values))
    }

    fn structure(&mut self, depth: u32) -> Option<Value> {
        self.eat("(");
        let mut fields = Vec::new();
        while !self.eat(")") {
            if !fields.is_empty() && !self.eat(",") {
                return None;
            }
            if self.eat(")") {
                break; // ('one',)
            }
            fields.push(self.value(None, depth + 1)?);
        }
        (!fields.is_empty()).then_some(Value::Struct(fields))
    }

    fn string(&mut self) -> Option<String> {
        let mut chars = self.rest.chars();
        let quote = chars.next()?;
        let mut text = String::new();
        loop {
            match chars.next()? {
                end if end == quote => break,
                '\\' => text.push(match chars.next()? {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    // Others, but for code points by number, which no property needs.
                    'u' | 'U' => return None,
                    other => other,
                }),
                other => text.push(other),
            }
        }
        self.rest = chars.as_str();
        Some(text)
    }
}

fn number(word: &str, wanted: Option<&str>) -> Option<Value> {
    let wanted = wanted.unwrap_or(if word.contains('.') { "d" } else { "i" });
    if wanted == "d" {
        return word.parse().ok().map(Value::Double);
    }
    let (negative, digits) = word.strip_prefix('-').map_or((false, word), |digits| (true, digits));
    let whole = match digits.strip_prefix("0x") {
        Some(hex) => i128::from_str_radix(hex, 16).ok()?,
        None => digits.parse::<u64>().ok()?.into(),
    };
    let whole = if negative { -whole } else { whole };
    Some(match wanted {
        "y" => Value::Byte(whole.try_into().ok()?),
        "n" => Value::I16(whole.try_into().ok()?),
        "q" => Value::U16(whole.try_into().ok()?),
        "i" => Value::I32(whole.try_into().ok()?),
        "u" => Value::U32(whole.try_into().ok()?),
        "x" => Value::I64(whole.try_into().ok()?),
        "t" => Value::U64(whole.try_into().ok()?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let strings =
            |all: &[&str]| Value::Array("s".to_owned(), all.iter().map(|s| Value::string(*s)).collect());
        for (text, value) in [
            ("true", Value::Bool(true)),
            ("5", Value::I32(5)),
            ("-5", Value::I32(-5)),
            ("uint64 500", Value::U64(500)),
            ("byte 0xff", Value::Byte(255)),
            ("int64 -1", Value::I64(-1)),
            ("0.5", Value::Double(0.5)),
            ("'inactive-or-failed'", Value::string("inactive-or-failed")),
            (r#""it's \"so\"""#, Value::string("it's \"so\"")),
            ("['a', 'b']", strings(&["a", "b"])),
            ("@as []", strings(&[])),
            ("@ay [1, 2]", Value::Array("y".to_owned(), vec![Value::Byte(1), Value::Byte(2)])),
            ("[byte 1, 2]", Value::Array("y".to_owned(), vec![Value::Byte(1), Value::Byte(2)])),
            ("('a', uint32 1)", Value::Struct(vec![Value::string("a"), Value::U32(1)])),
            ("<5>", Value::I32(5).variant()),
            ("b'a'", Value::Array("y".to_owned(), vec![Value::Byte(b'a'), Value::Byte(0)])),
            ("objectpath '/a'", Value::Path("/a".to_owned())),
        ] {
            assert_eq!(parse(text), Some(value), "{text}");
        }
        for bad in [
            "",
            "@aM} []",
            "@y [1]",
            "@() ()",
            &format!("({})", "1,".repeat(300)),
            "[]",
            "'a",
            "5 6",
            "['a', 5]",
            "byte 256",
            "uint32 -1",
            "nothing",
            "(",
            "[[[[[[[[[[[[[[[[[[[1",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn annotations() {
        let of = |key: &str, value: &str| properties(&[(key.to_owned(), value.to_owned())].into());
        let usec = |value| vec![("TimeoutStopUSec".to_owned(), Value::U64(value))];
        assert_eq!(of("org.systemd.property.TimeoutStopUSec", "uint64 5").expect("USec"), usec(5));
        assert_eq!(of("org.systemd.property.TimeoutStopSec", "5").expect("Sec"), usec(5_000_000));
        assert_eq!(of("org.systemd.property.TimeoutStopSec", "0.5").expect("Sec"), usec(500_000));
        assert_eq!(of("io.kubernetes.cri.x", "anything").expect("not ours"), []);
        for (key, value) in [("TimeoutStopSec", "'x'"), ("", "5"), ("A.B", "5"), ("A", "")] {
            let error = of(&format!("org.systemd.property.{key}"), value).expect_err(key);
            assert!(matches!(error, Error::Annotation { .. }), "{error}");
        }
    }
}
