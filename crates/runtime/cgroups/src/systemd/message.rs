//! Messages of D-Bus (D-Bus specification, "Message Protocol").

use super::value::{Reader, Value, pad};

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;
/// What comes before the header fields.
const FIXED: usize = 16;
/// The specification's limit is 128 MiB; nothing that we ask for is near this.
const LONGEST: usize = 4 << 20;

/// Whom a call is for, and what is called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Method<'a> {
    pub(crate) destination: &'a str,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) member: &'a str,
}

/// A call, ready to be sent.
pub(crate) fn call(serial: u32, method: Method<'_>, arguments: &[Value]) -> Vec<u8> {
    let mut body = Vec::new();
    arguments.iter().for_each(|argument| argument.encode(&mut body));
    let signature: String = arguments.iter().map(Value::signature).collect();
    let field = |code, value: Value| Value::Struct(vec![Value::Byte(code), value.variant()]);
    let mut fields = vec![
        field(1, Value::Path(method.path.to_owned())),
        field(2, Value::string(method.interface)),
        field(3, Value::string(method.member)),
        field(6, Value::string(method.destination)),
    ];
    if !signature.is_empty() {
        fields.push(field(8, Value::Signature(signature)));
    }
    let mut message = vec![b'l', METHOD_CALL, 0, 1];
    Value::U32(u32::try_from(body.len()).unwrap_or(u32::MAX)).encode(&mut message);
    Value::U32(serial).encode(&mut message);
    Value::Array("(yv)".to_owned(), fields).encode(&mut message);
    pad(&mut message, 8);
    message.append(&mut body);
    message
}

/// What a message is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The answer to the call of this serial number.
    Return(u32),
    /// That call failed, with an error of this name.
    Error(u32, String),
    /// A signal of this name.
    Signal(String),
    /// What we have no use for.
    Other,
}

/// A message that was received.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) arguments: Vec<Value>,
}

/// The first message in `bytes` and its length; `Ok(None)` if it isn't complete yet, an error if it can't be one.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Message, usize)>, Damaged> {
    let Some(fixed) = bytes.get(..FIXED) else { return Ok(None) };
    let big_endian = match fixed.first() {
        Some(b'l') => false,
        Some(b'B') => true,
        _ => return Err(Damaged),
    };
    let number = |at: usize| {
        let values = Reader::new(fixed.get(at..).unwrap_or_default(), big_endian).values("u");
        match values.as_deref() {
            Some([Value::U32(number)]) => Ok(*number as usize),
            _ => Err(Damaged),
        }
    };
    let (body, fields) = (number(4)?, number(12)?);
    if body > LONGEST || fields > LONGEST {
        return Err(Damaged);
    }
    let start = (FIXED + fields).next_multiple_of(8);
    let Some(whole) = bytes.get(..start + body) else { return Ok(None) };
    let fields = header(whole.get(12..FIXED + fields).unwrap_or_default(), big_endian).ok_or(Damaged)?;
    let arguments = Reader::new(whole.get(start..).unwrap_or_default(), big_endian).values(&fields.signature);
    let kind = match (fixed.get(1), fields.reply_to) {
        (Some(&METHOD_RETURN), Some(serial)) => Kind::Return(serial),
        (Some(&ERROR), Some(serial)) => Kind::Error(serial, fields.error),
        (Some(&SIGNAL), _) => Kind::Signal(fields.member),
        _ => Kind::Other,
    };
    // The arguments of a signal that isn't for us may be of types that we don't know.
    let arguments = match (arguments, &kind) {
        (Some(arguments), _) => arguments,
        (None, Kind::Signal(_) | Kind::Other) => Vec::new(),
        (None, _) => return Err(Damaged),
    };
    Ok(Some((Message { kind, arguments }, start + body)))
}

/// The bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damaged;

#[derive(Default)]
struct Fields {
    member: String,
    error: String,
    reply_to: Option<u32>,
    signature: String,
}

/// `bytes` begin with the length of the array of fields, which is at 12: not aligned to 8, but the array's elements are,
/// behind it.
fn header(bytes: &[u8], big_endian: bool) -> Option<Fields> {
    let mut fields = Fields::default();
    let mut reader = Reader::new(bytes.get(4..)?, big_endian);
    let end = bytes.len() - 4;
    while reader.position().next_multiple_of(8) < end {
        let mut field = reader.values("(yv)")?;
        let Some(Value::Struct(parts)) = field.pop() else { return None };
        let [Value::Byte(code), Value::Variant(value)] = parts.as_slice() else { return None };
        match (code, &**value) {
            (3, Value::String(member)) => fields.member.clone_from(member),
            (4, Value::String(name)) => fields.error.clone_from(name),
            (5, Value::U32(serial)) => fields.reply_to = Some(*serial),
            (8, Value::Signature(signature)) => fields.signature.clone_from(signature),
            _ => {}
        }
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHOD: Method<'_> =
        Method { destination: "org.x", path: "/org/x", interface: "org.x.Y", member: "Do" };

    /// A call made into another kind of message, with a reply serial instead of the destination.
    fn message(kind: u8, fields: Vec<(u8, Value)>, arguments: &[Value]) -> Vec<u8> {
        let mut body = Vec::new();
        arguments.iter().for_each(|argument| argument.encode(&mut body));
        let mut out = vec![b'l', kind, 0, 1];
        Value::U32(u32::try_from(body.len()).expect("short")).encode(&mut out);
        Value::U32(9).encode(&mut out);
        let fields = fields.into_iter().map(|(code, v)| Value::Struct(vec![Value::Byte(code), v.variant()]));
        Value::Array("(yv)".to_owned(), fields.collect()).encode(&mut out);
        pad(&mut out, 8);
        out.extend(body);
        out
    }

    #[test]
    fn replies_errors_and_signals() {
        let reply = message(
            2,
            vec![(5, Value::U32(3)), (8, Value::Signature("o".to_owned()))],
            &[Value::Path("/job/1".to_owned())],
        );
        let parsed = Message { kind: Kind::Return(3), arguments: vec![Value::Path("/job/1".to_owned())] };
        assert_eq!(parse(&reply), Ok(Some((parsed, reply.len()))));
        let error = message(3, vec![(4, Value::string("org.No")), (5, Value::U32(4))], &[]);
        let (parsed, _) = parse(&error).expect("error").expect("whole");
        assert_eq!(parsed.kind, Kind::Error(4, "org.No".to_owned()));
        let signal = message(4, vec![(3, Value::string("JobRemoved"))], &[]);
        let (parsed, length) = parse(&[signal.clone(), reply].concat()).expect("signal").expect("whole");
        assert_eq!((parsed.kind, length), (Kind::Signal("JobRemoved".to_owned()), signal.len()));
    }

    #[test]
    fn parts_are_waited_for_and_nonsense_is_refused() {
        let whole = call(1, METHOD, &[Value::string("a")]);
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end]), Ok(None), "{end}");
        }
        assert!(
            matches!(parse(&whole), Ok(Some((Message { kind: Kind::Other, .. }, length))) if length == whole.len())
        );
        assert_eq!(parse(&[b'x'; 16]), Err(Damaged));
        let mut long = whole;
        long.splice(4..8, [255; 4]);
        assert_eq!(parse(&long), Err(Damaged));
    }
}
