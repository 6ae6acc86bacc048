//! From a place in a JSON text to the path of the field there.

/// The path of the field that ends at or contains the byte at `line` and `column` (both from 1).
pub(crate) fn field_at(_json: &[u8], _line: usize, _column: usize) -> String {
    String::new()
}
