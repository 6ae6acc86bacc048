//! What was measured, against what is aimed at. A target that isn't met is told, not an error: machines differ.

/// Of Debian's crun, at most: `(operation, share)`.
const OF_CRUN: [(&str, f64); 6] =
    [("run", 0.35), ("create", 0.3), ("start", 0.5), ("exec", 0.55), ("state", 0.5), ("delete", 0.5)];
/// Of the floor program, at most.
const RUN_OF_FLOOR: f64 = 1.35;
/// KiB that `run` may have resident at most.
const PEAK_KIB: f64 = 1700.0;
/// Bytes that the binary may have at most.
const BINARY: f64 = 4e6;

/// The figures of one runtime (or the floor) for one operation, in milliseconds.
pub(super) struct Figure {
    pub(super) median: f64,
    pub(super) cpu: f64,
}

/// Prints a line that says whether a target is met.
pub(super) fn verdict(what: &str, measured: f64, at_most: f64, unit: &str) {
    let word = if measured <= at_most { "met" } else { "NOT met" };
    println!("{word}: {what}: {measured:.2}{unit}, at most {at_most}{unit}");
}

/// Compares an operation of corten with that of the peers that were measured.
pub(super) fn operation(name: &str, corten: &Figure, crun: Option<&Figure>, floor: Option<&Figure>) {
    if let (Some(floor), "run") = (floor, name) {
        verdict("run, of the floor's median", corten.median / floor.median, RUN_OF_FLOOR, " ×");
        verdict("run, of the floor's user+sys", corten.cpu / floor.cpu, RUN_OF_FLOOR, " ×");
    }
    if let (Some(crun), Some((_, share))) = (crun, OF_CRUN.iter().find(|(of, _)| *of == name)) {
        verdict(&format!("{name}, of crun's median"), corten.median / crun.median, *share, " ×");
    }
}

/// The peak memory of `corten run`, in KiB.
pub(super) fn peak(kib: f64) {
    verdict("peak memory of run", kib, PEAK_KIB, " KiB");
}

/// The size of `corten`.
pub(super) fn size(bytes: u64) {
    verdict("size of corten", bytes as f64 / 1e6, BINARY / 1e6, " MB");
}
