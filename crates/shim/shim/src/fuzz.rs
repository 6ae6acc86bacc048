//! What comes from outside, for integration/fuzz.

use crate::bundle::Config;
use crate::cgroup::Cgroup;
use crate::io::{Splitter, parse_stdio};
use crate::tree;

/// Files of /proc: a process chooses its own name.
pub fn proc_files(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    tree::parse_stat(&text);
    let _ = corten_sys::stuck::parse_stat(&text); // as below: that it returns is enough
    Cgroup::parse(&text, false);
    Cgroup::parse(&text, true);
}

/// Strings for stdio, what a shim is started with, options, and a bundle's config.json as far as it matters here.
pub fn requests(bytes: &[u8]) {
    let args = ["-namespace", "n", "-id", "i", "start"].into_iter().map(Into::into);
    if let Ok(args) = crate::Args::parse(args) {
        crate::bootstrap::understand(args, bytes, None);
    }
    let any = prost_types::Any { type_url: "containerd.runc.v1.Options".to_owned(), value: bytes.to_vec() };
    let _ = crate::options::decode(Some(&any)); // most bytes are none
    let _ = crate::options::toml(&String::from_utf8_lossy(bytes)); // as above
    parse_stdio(&String::from_utf8_lossy(bytes));
    if let Ok(config) = serde_json::from_slice::<Config>(bytes) {
        config.group();
        config.own_pid_namespace();
    }
}

/// A container's output: however it arrives, the log has the same content, and every byte of it.
pub fn output(bytes: &[u8]) {
    let Some((&[limit, size], output)) = bytes.split_first_chunk::<2>() else { return };
    let split = |chunk: usize| {
        let (mut splitter, mut log) = (Splitter::new("stdout", usize::from(limit)), Vec::new());
        for part in output.chunks(chunk.max(1)) {
            splitter.push(part, "T", &mut log);
        }
        splitter.finish("T", &mut log);
        log
    };
    let log = split(usize::from(size));
    assert!(log == split(usize::MAX), "the log depends on how the output arrives");
    let mut content = Vec::new();
    for entry in log.split_inclusive(|byte| *byte == b'\n') {
        let entry = entry.strip_prefix(b"T stdout ").expect("an entry begins with time and stream");
        let (tag, text) = entry.split_at(2);
        content.extend_from_slice(if tag == b"P " { &text[..text.len() - 1] } else { text });
    }
    assert!(content == output, "the log isn't what was written");
}
