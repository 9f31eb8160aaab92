//! A line of the input.

/// What stands in a line of the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Its number, from 1.
    pub(super) number: u64,
    /// The body of its job, or why it is none.
    pub(super) body: Result<Vec<u8>, String>,
}

/// UTF-8's.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Whether the input is UTF-16, as PowerShell's `>` writes it. Both byte orders begin with their mark.
pub(super) fn is_utf16(first: &[u8]) -> bool {
    first.starts_with(b"\xff\xfe") || first.starts_with(b"\xfe\xff")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_encoding_is_known_by_its_mark() {
        assert!(is_utf16(b"\xff\xfe{\0}\0") && is_utf16(b"\xfe\xff\0{\0}"));
        assert!(!is_utf16(b"\xef\xbb\xbf{}") && !is_utf16(b"{}") && !is_utf16(b"\xff"));
    }
}
