//! Stands in for the regex crate, which oci-spec names: what of its API oci-spec and prost-build use, over regex-lite. See
//! docs/decisions/0011-regex-lite.md.
#![forbid(unsafe_code)]

pub use regex_lite::*;

#[cfg(test)]
mod tests {
    use super::Regex;

    #[test]
    fn what_oci_spec_asks_for() {
        let affinity = Regex::new(r"^(\d+(-\d+)?)(,\d+(-\d+)?)*$").expect("an expression");
        assert!(affinity.is_match("0-3,7") && !affinity.is_match("0-") && !affinity.is_match("\u{661}"));
    }
}
