//! What comes from outside, for integration/fuzz.

use std::path::Path;

use oci_spec::runtime::{Process, Spec};
use prost::Message as _;

use crate::{
    criu::{rpc::Response, session::refusal},
    filter,
    plan::{self, Circumstances, Plan},
    record,
    spawn::sync::{decode_failure, encode_failure},
};

/// config.json, up to the plan and the filter: it's planned or refused, for root and for others.
pub fn config(bytes: &[u8]) {
    let path = Path::new("config.json");
    let _ = corten_bundle::unknown_fields(bytes); // what they say is for people
    let Ok(spec) = corten_bundle::parse::<Spec>(bytes, path) else { return };
    let _ = corten_bundle::validate(&spec); // as well
    for unprivileged in [false, true] {
        let circumstances = Circumstances {
            unprivileged,
            in_user_namespace: unprivileged,
            like_crun: true,
            ..Circumstances::default()
        };
        if let Ok(plan) = Plan::new(Path::new("/bundle"), &spec, circumstances)
            && let Ok(filter) = filter::compile(&spec, &plan)
        {
            let bytes = filter::to_bytes(filter.as_ref());
            assert_eq!(
                filter::from_bytes(&bytes).map(|back| back.len()),
                Some(filter.map_or(0, |filter| filter.instructions.len())),
                "a filter is lost on its way through the record"
            );
        }
    }
}

/// `exec --process`.
pub fn process(bytes: &[u8]) {
    let Ok(process) = corten_bundle::parse::<Process>(bytes, Path::new("process.json")) else { return };
    let circumstances = Circumstances::default();
    plan::exec(&process, circumstances).ok(); // because it may be refused
}

/// Init's last words: a container may have got at the process that sends them.
pub fn last_words(bytes: &[u8]) {
    let said = decode_failure(bytes);
    let again = decode_failure(&encode_failure(&said));
    assert_eq!(said.to_string(), again.to_string(), "words are lost on their way");
}

/// A container's record, which another version of the runtime may have written.
pub fn record(bytes: &[u8]) {
    let Ok((record, end)) = record::parse::<record::Record>(bytes) else { return };
    let mut text = serde_json::to_vec(&record).expect("it was JSON");
    let (again, _) = record::parse::<record::Record>(&text).expect("what was written can be read");
    let mut again = serde_json::to_vec(&again).expect("it was JSON");
    // Sets of capabilities come in any order.
    text.sort_unstable();
    again.sort_unstable();
    assert!(again == text, "a record is lost on its way");
    filter::from_bytes(bytes.get(end + 1..).unwrap_or_default());
}

/// What criu says.
pub fn criu(bytes: &[u8]) {
    let Ok(response) = Response::decode(bytes) else { return };
    assert!(!refusal(&response).is_empty());
}
