//! Points in time as nanoseconds since 1970, the form Corten keeps them in, and as protobuf's Timestamp.

use std::time::SystemTime;

use prost_types::Timestamp;

/// Now, in nanoseconds since 1970.
#[must_use]
pub fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Nanoseconds since 1970 as a Timestamp; 0 stands for "not yet" and has none.
#[must_use]
pub fn to_timestamp(ns: i64) -> Option<Timestamp> {
    (ns != 0).then(|| Timestamp {
        seconds: ns.div_euclid(1_000_000_000),
        nanos: i32::try_from(ns.rem_euclid(1_000_000_000)).unwrap_or_default(),
    })
}

/// The reverse of [`to_timestamp`]. Times outside of what fits (the years 1678 to 2262) are cut to that.
#[must_use]
pub fn from_timestamp(timestamp: Option<&Timestamp>) -> i64 {
    timestamp.map_or(0, |t| t.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(t.nanos)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_survive_the_round_trip() {
        for ns in [1, 999_999_999, 1_000_000_000, 1_700_000_000_123_456_789, -1] {
            assert_eq!(from_timestamp(to_timestamp(ns).as_ref()), ns);
        }
        assert_eq!(to_timestamp(0), None);
        assert_eq!(from_timestamp(None), 0);
    }
}
