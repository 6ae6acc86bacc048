//! Values of D-Bus and how they are laid out in a message (D-Bus specification, "Type system", "Marshaling").

/// A value that can be sent or received. All that systemd's manager takes and says is made of these.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Byte(u8),
    Bool(bool),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Double(f64),
    String(String),
    Path(String),
    Signature(String),
    /// With the signature of its elements, as it may have none.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
    /// Of a dictionary, which is an array of these.
    Entry(Box<Value>, Box<Value>),
    Variant(Box<Value>),
}

impl Value {
    /// A string.
    pub(crate) fn string(text: impl Into<String>) -> Self {
        Self::String(text.into())
    }

    /// A variant.
    pub(crate) fn variant(self) -> Self {
        Self::Variant(Box::new(self))
    }

    /// The string in it, also of a path.
    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) | Self::Path(text) | Self::Signature(text) => Some(text),
            Self::Variant(inner) => inner.as_str(),
            _ => None,
        }
    }

    /// Its type.
    pub(crate) fn signature(&self) -> String {
        let basic = match self {
            Self::Byte(_) => "y",
            Self::Bool(_) => "b",
            Self::I16(_) => "n",
            Self::U16(_) => "q",
            Self::I32(_) => "i",
            Self::U32(_) => "u",
            Self::I64(_) => "x",
            Self::U64(_) => "t",
            Self::Double(_) => "d",
            Self::String(_) => "s",
            Self::Path(_) => "o",
            Self::Signature(_) => "g",
            Self::Variant(_) => "v",
            Self::Array(element, _) => return format!("a{element}"),
            Self::Struct(fields) => {
                return format!("({})", fields.iter().map(Self::signature).collect::<String>());
            }
            Self::Entry(key, value) => return format!("{{{}{}}}", key.signature(), value.signature()),
        };
        basic.to_owned()
    }

    /// Appends it, in little-endian order; `out` begins where the message, or a part of it aligned to 8, begins.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Byte(value) => out.push(*value),
            Self::Bool(value) => fixed(out, u32::from(*value).to_le_bytes()),
            Self::I16(value) => fixed(out, value.to_le_bytes()),
            Self::U16(value) => fixed(out, value.to_le_bytes()),
            Self::I32(value) => fixed(out, value.to_le_bytes()),
            Self::U32(value) => fixed(out, value.to_le_bytes()),
            Self::I64(value) => fixed(out, value.to_le_bytes()),
            Self::U64(value) => fixed(out, value.to_le_bytes()),
            Self::Double(value) => fixed(out, value.to_le_bytes()),
            Self::String(text) | Self::Path(text) => {
                fixed(out, length(text.len()).to_le_bytes());
                out.extend(text.bytes());
                out.push(0);
            }
            Self::Signature(text) => encode_signature(out, text),
            Self::Array(element, values) => {
                pad(out, 4);
                let at = out.len();
                out.extend([0; 4]);
                // Even an empty array is followed by the padding of its elements, which its length leaves out.
                pad(out, alignment(element.bytes().next().unwrap_or(b'y')));
                let start = out.len();
                values.iter().for_each(|value| value.encode(out));
                let size = length(out.len() - start).to_le_bytes();
                out.splice(at..at + 4, size);
            }
            Self::Struct(fields) => {
                pad(out, 8);
                fields.iter().for_each(|field| field.encode(out));
            }
            Self::Entry(key, value) => {
                pad(out, 8);
                key.encode(out);
                value.encode(out);
            }
            Self::Variant(inner) => {
                encode_signature(out, &inner.signature());
                inner.encode(out);
            }
        }
    }
}

fn encode_signature(out: &mut Vec<u8>, text: &str) {
    // A signature longer than 255 would be ours, and none is.
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend(text.bytes());
    out.push(0);
}

fn fixed<const N: usize>(out: &mut Vec<u8>, bytes: [u8; N]) {
    pad(out, N);
    out.extend(bytes);
}

pub(crate) fn pad(out: &mut Vec<u8>, alignment: usize) {
    out.resize(out.len().next_multiple_of(alignment), 0);
}

fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn alignment(kind: u8) -> usize {
    match kind {
        b'y' | b'g' | b'v' => 1,
        b'n' | b'q' => 2,
        b'x' | b't' | b'd' | b'(' | b'{' => 8,
        _ => 4,
    }
}

/// Reads values out of a message. `None`: it is damaged.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    /// From a place aligned to 8.
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl<'a> Reader<'a> {
    /// Of (a part of) a message.
    pub(crate) fn new(bytes: &'a [u8], big_endian: bool) -> Self {
        Self { bytes, at: 0, big_endian }
    }

    /// Where it has come to.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// All values of a signature.
    pub(crate) fn values(&mut self, signature: &str) -> Option<Vec<Value>> {
        let mut rest = signature;
        let mut values = Vec::new();
        while !rest.is_empty() {
            let (one, after) = split(rest)?;
            values.push(is_type(one).then(|| self.value(one, 0))??);
            rest = after;
        }
        Some(values)
    }

    fn value(&mut self, signature: &str, depth: u32) -> Option<Value> {
        if depth > 32 {
            return None;
        }
        Some(match signature.bytes().next()? {
            b'y' => Value::Byte(self.number::<1>()?.to_le_bytes()[0]),
            b'b' => Value::Bool(self.number::<4>()? != 0),
            b'n' => Value::I16(self.number::<2>()? as u16 as i16),
            b'q' => Value::U16(self.number::<2>()? as u16),
            b'i' | b'h' => Value::I32(self.number::<4>()? as u32 as i32),
            b'u' => Value::U32(self.number::<4>()? as u32),
            b'x' => Value::I64(self.number::<8>()? as i64),
            b't' => Value::U64(self.number::<8>()?),
            b'd' => Value::Double(f64::from_bits(self.number::<8>()?)),
            b's' => Value::String(self.text::<4>()?),
            b'o' => Value::Path(self.text::<4>()?),
            b'g' => Value::Signature(self.text::<1>()?),
            b'v' => {
                let inner = self.text::<1>()?;
                is_type(&inner).then(|| self.value(&inner, depth + 1))??.variant()
            }
            b'a' => {
                let element = signature.get(1..)?;
                let size = usize::try_from(self.number::<4>()?).ok()?;
                self.align(alignment(element.bytes().next()?))?;
                let end = self.at.checked_add(size).filter(|end| *end <= self.bytes.len())?;
                let mut values = Vec::new();
                while self.at < end {
                    values.push(self.value(element, depth + 1)?);
                }
                Value::Array(element.to_owned(), values)
            }
            b'(' => {
                self.align(8)?;
                Value::Struct(self.fields(signature.strip_prefix('(')?.strip_suffix(')')?, depth)?)
            }
            b'{' => {
                self.align(8)?;
                let mut fields = self.fields(signature.strip_prefix('{')?.strip_suffix('}')?, depth)?;
                let (value, key) = (fields.pop()?, fields.pop()?);
                Value::Entry(key.into(), value.into())
            }
            _ => return None,
        })
    }

    fn fields(&mut self, signature: &str, depth: u32) -> Option<Vec<Value>> {
        let mut rest = signature;
        let mut values = Vec::new();
        while !rest.is_empty() {
            let (one, after) = split(rest)?;
            values.push(self.value(one, depth + 1)?);
            rest = after;
        }
        Some(values)
    }

    fn align(&mut self, alignment: usize) -> Option<()> {
        self.at = self.at.next_multiple_of(alignment);
        (self.at <= self.bytes.len()).then_some(())
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let bytes = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    /// An unsigned number of N bytes.
    fn number<const N: usize>(&mut self) -> Option<u64> {
        self.align(N)?;
        let mut all = [0; 8];
        let bytes = self.take(N)?;
        let fold = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        if self.big_endian {
            return Some(bytes.iter().fold(0, fold));
        }
        all.get_mut(..N)?.copy_from_slice(bytes);
        Some(u64::from_le_bytes(all))
    }

    /// A string, with N bytes for its length, and a zero behind it.
    fn text<const N: usize>(&mut self) -> Option<String> {
        let length = usize::try_from(self.number::<N>()?).ok()?;
        let text = std::str::from_utf8(self.take(length)?).ok()?.to_owned();
        self.take(1)?;
        Some(text)
    }
}

/// Whether a signature is of exactly one value, and one that there is.
pub(crate) fn is_type(signature: &str) -> bool {
    after_type(signature, 0) == Some("")
}

fn after_type(signature: &str, depth: u32) -> Option<&str> {
    if depth > 32 {
        return None;
    }
    let (kind, rest) = signature.split_at_checked(1)?;
    let after_fields = |mut rest, end| {
        let mut count = 0;
        loop {
            if let Some(after) = str::strip_prefix(rest, end) {
                return Some((after, count));
            }
            rest = after_type(rest, depth + 1)?;
            count += 1;
        }
    };
    match kind {
        "a" => match rest.strip_prefix('{') {
            Some(fields) => {
                after_fields(fields, '}').filter(|(_, count)| *count == 2).map(|(after, _)| after)
            }
            None => after_type(rest, depth + 1),
        },
        // There is none without fields: an array of them would have no end, as they take no bytes.
        "(" => after_fields(rest, ')').filter(|(_, count)| *count > 0).map(|(after, _)| after),
        basic => "ybnqiuxtdsoghv".contains(basic).then_some(rest),
    }
}

/// Splits the first complete type off a signature.
fn split(signature: &str) -> Option<(&str, &str)> {
    let mut depth = 0_u32;
    for (index, kind) in signature.bytes().enumerate() {
        match kind {
            b'a' => continue,
            b'(' | b'{' => depth += 1,
            b')' | b'}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return signature.split_at_checked(index + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        for good in ["y", "as", "(yv)", "a(yv)", "a{sv}", "aa{s(iu)}", "v"] {
            assert!(is_type(good), "{good}");
        }
        for bad in
            ["", "a", "M", "aM}", "()", "a()", "(y", "y)", "{sv}", "a{s}", "a{svv}", "yy", &"a".repeat(100)]
        {
            assert!(!is_type(bad), "{bad}");
        }
        // This has no end if it is believed.
        assert!(
            Reader::new(&[8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], false).values("a()").is_none()
        );
    }

    #[test]
    fn what_is_written_can_be_read() {
        let bytes = Value::Array("y".to_owned(), vec![Value::Byte(1), Value::Byte(2)]);
        let values = [
            Value::Byte(7),
            Value::U64(1 << 40),
            Value::Bool(true),
            Value::string("text"),
            Value::Array("(st)".to_owned(), Vec::new()),
            Value::Array(
                "(sv)".to_owned(),
                vec![Value::Struct(vec![Value::string("AllowedCPUs"), bytes.variant()])],
            ),
            Value::Array(
                "{sv}".to_owned(),
                vec![Value::Entry(Box::new(Value::string("k")), Box::new(Value::I32(-5).variant()))],
            ),
            Value::I16(-2),
            Value::Double(0.5),
            Value::Path("/a".to_owned()),
        ];
        let mut out = Vec::new();
        values.iter().for_each(|value| value.encode(&mut out));
        let signature: String = values.iter().map(Value::signature).collect();
        assert_eq!(signature, "ytbsa(st)a(sv)a{sv}ndo");
        assert_eq!(Reader::new(&out, false).values(&signature), Some(values.to_vec()));
        // Cut off anywhere, it is damaged, and nothing else happens.
        for end in 0..out.len() {
            assert_eq!(Reader::new(&out[..end], false).values(&signature), None, "{end}");
        }
    }

    #[test]
    fn known_layout() {
        let mut out = Vec::new();
        Value::Byte(1).encode(&mut out);
        Value::Array("t".to_owned(), vec![Value::U64(2)]).encode(&mut out);
        // A byte, padding to 4, the length, padding to 8, the element.
        assert_eq!(out, [1, 0, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Reader::new(&[0, 0, 1, 0], true).values("u"), Some(vec![Value::U32(256)]));
    }

    #[test]
    fn nonsense_is_refused() {
        for (bytes, signature) in [
            (&[255, 255, 255, 255][..], "ay"),
            (&[3, 0, 0, 0, b'a', 255, b'c', 0], "s"),
            (&[1, b'v', 0, 1, b'v', 0, 1, b'v', 0], "v"),
            (&[0; 8], "(y"),
            (&[0; 8], "z"),
        ] {
            assert_eq!(Reader::new(bytes, false).values(signature), None, "{signature}");
        }
    }
}
