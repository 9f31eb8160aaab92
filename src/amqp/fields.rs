//! Reads AMQP fields in place and repairs them. No byte changes its position.
//!
//! The grammar is that of lapin's parser (`amq-protocol-types`, `AMQPType::from_id`), which is also
//! RabbitMQ's. lapin can parse everything that passes here.

use std::str;

use crate::job::envelope;

/// Replaces each byte that is not part of a character. The reader of the string can then see that the
/// producer wrote something else.
const SUBSTITUTE: u8 = envelope::SUBSTITUTE as u8;

/// How many tables and arrays may be nested, the outermost included.
///
/// lapin's parser recurses on its I/O thread. The stack of that thread overflows at some hundreds of levels,
/// and the whole process dies. RabbitMQ's addition `x-death` is three levels deep.
pub(super) const MAX_DEPTH: usize = 16;

/// The bytes do not follow the grammar, so nothing after them can be understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The unread rest of a list of fields, and whether any field had to be changed.
pub(super) struct Fields<'a> {
    rest: &'a mut [u8],
    repaired: bool,
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        Self { rest: bytes, repaired: false }
    }

    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn repaired(&self) -> bool {
        self.repaired
    }

    pub(super) fn skip(&mut self, count: usize) -> Result<(), Malformed> {
        self.take(count).map(drop)
    }

    /// Reads a string with a length of one byte. lapin requires such a string to be UTF-8.
    pub(super) fn short_string(&mut self) -> Result<(), Malformed> {
        let length = *self.byte()?;
        let text = self.take(length.into())?;
        self.repaired |= substitute_invalid(text);
        Ok(())
    }

    /// Reads a table that is inside no other.
    pub(super) fn table(&mut self) -> Result<(), Malformed> {
        let content = self.sized()?;
        self.inside(content, |fields| fields.entries(1))
    }

    /// Reads bytes with a length of four bytes: a long string, a byte array, a table or an array.
    pub(super) fn sized(&mut self) -> Result<&'a mut [u8], Malformed> {
        let mut length = [0; 4];
        length.copy_from_slice(self.take(4)?);
        let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| Malformed)?;
        self.take(length)
    }

    fn byte(&mut self) -> Result<&'a mut u8, Malformed> {
        self.take(1)?.first_mut().ok_or(Malformed)
    }

    fn take(&mut self, count: usize) -> Result<&'a mut [u8], Malformed> {
        let rest = std::mem::take(&mut self.rest);
        let (taken, rest) = rest.split_at_mut_checked(count).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn value(&mut self, depth: usize) -> Result<(), Malformed> {
        let kind = self.byte()?;
        match *kind {
            b'V' => Ok(()),
            b't' | b'b' | b'B' => self.skip(1),
            b's' | b'U' | b'u' => self.skip(2),
            b'I' | b'i' | b'f' => self.skip(4),
            b'D' => self.skip(5),
            b'L' | b'l' | b'd' | b'T' => self.skip(8),
            b'S' | b'x' => self.sized().map(drop),
            b'A' | b'F' => self.nested(kind, depth),
            _ => Err(Malformed),
        }
    }

    /// Reads a table or array inside another at `depth`. If it is too deep, its type is changed to byte
    /// array, which has the same layout from outside.
    fn nested(&mut self, kind: &mut u8, depth: usize) -> Result<(), Malformed> {
        let content = self.sized()?;
        if depth == MAX_DEPTH {
            *kind = b'x';
            self.repaired = true;
            return Ok(());
        }
        let table = *kind == b'F';
        self.inside(content, |fields| if table { fields.entries(depth + 1) } else { fields.items(depth + 1) })
    }

    fn entries(&mut self, depth: usize) -> Result<(), Malformed> {
        while self.len() > 0 {
            self.short_string()?;
            self.value(depth)?;
        }
        Ok(())
    }

    fn items(&mut self, depth: usize) -> Result<(), Malformed> {
        while self.len() > 0 {
            self.value(depth)?;
        }
        Ok(())
    }

    /// Reads `content`. Changes made before an error stay, and are reported.
    fn inside(
        &mut self,
        content: &'a mut [u8],
        read: impl FnOnce(&mut Fields<'a>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let mut fields = Fields::new(content);
        let result = read(&mut fields);
        self.repaired |= fields.repaired;
        result
    }
}

/// Repairs the content of a table that is inside no other. Returns true if anything was changed.
pub(super) fn repair_table(content: &mut [u8]) -> Result<bool, Malformed> {
    let mut fields = Fields::new(content);
    fields.entries(1)?;
    Ok(fields.repaired)
}

/// Overwrites the bytes that are not UTF-8. Returns true if there were any.
fn substitute_invalid(text: &mut [u8]) -> bool {
    let mut checked = 0;
    while let Err(invalid) = str::from_utf8(&text[checked..]) {
        let start = checked + invalid.valid_up_to();
        let end = invalid.error_len().map_or(text.len(), |length| start + length);
        text[start..end].fill(SUBSTITUTE);
        checked = end;
    }
    checked > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn repaired(text: &[u8]) -> Vec<u8> {
        let mut text = text.to_vec();
        substitute_invalid(&mut text);
        text
    }

    #[test]
    fn valid_text_is_left_alone() {
        let mut text = "Đã gửi mã ✓ \u{1A}".as_bytes().to_vec();
        assert!(!substitute_invalid(&mut text));
        assert_eq!(text, "Đã gửi mã ✓ \u{1A}".as_bytes());
    }

    #[test]
    fn each_offending_byte_becomes_one_substitute() {
        assert_eq!(repaired(b"\xff\xfea\xff"), b"\x1a\x1aa\x1a");
        assert_eq!(repaired(b"a\xe2\x9c"), b"a\x1a\x1a", "cut off in a character");
        assert_eq!(repaired(b"\xed\xa0\x80"), b"\x1a\x1a\x1a", "a surrogate");
    }

    proptest! {
        #[test]
        fn repaired_text_is_utf8_of_the_same_length(text: Vec<u8>) {
            let after = repaired(&text);
            prop_assert_eq!(after.len(), text.len());
            prop_assert!(str::from_utf8(&after).is_ok());
        }
    }
}
