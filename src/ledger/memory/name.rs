//! A job's id in few bytes, for a ledger that keeps hundreds of thousands of them. Pure.

use std::sync::Arc;

use uuid::Uuid;

/// The length of a UUID as text.
pub(super) const UUID_TEXT: usize = 36;

/// An id. Two are equal where their texts are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Name {
    /// A UUID in lower case: a third of its text.
    Uuid(Uuid),
    /// Any other text.
    Text(Arc<str>),
}

impl Name {
    /// The name of the job with this id.
    pub(super) fn of(id: &str) -> Self {
        match uuid_at(id.as_bytes()) {
            Some(uuid) if id.len() == UUID_TEXT => Self::Uuid(uuid),
            Some(_) | None => Self::Text(id.into()),
        }
    }
}

/// The UUID that the text begins with, if it is written as we write them: in lower case, with hyphens.
pub(super) fn uuid_at(text: &[u8]) -> Option<Uuid> {
    let text = text.get(..UUID_TEXT).filter(|text| text.get(8) == Some(&b'-'))?;
    let uuid = Uuid::try_parse_ascii(text).ok()?;
    let mut written = [0; UUID_TEXT];
    (uuid.hyphenated().encode_lower(&mut written).as_bytes() == text).then_some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "5f0c6c3e-2d43-4b53-a7b5-0f5b5f0f8f10";

    #[test]
    fn a_uuid_needs_no_room_on_the_heap() {
        assert!(matches!(Name::of(ID), Name::Uuid(_)));
        assert_eq!(size_of::<Name>(), 24);
    }

    #[test]
    fn only_equal_texts_have_equal_names() {
        let upper = ID.to_uppercase();
        let (without, in_braces, urn) = (ID.replace('-', ""), format!("{{{ID}}}"), format!("urn:uuid:{ID}"));
        let longer = format!("{ID}0");
        let ids = [ID, &upper, &without, &in_braces, &urn, &longer, &ID[..35], "", "job-1", "đơn"];
        for (n, one) in ids.iter().enumerate() {
            for (m, other) in ids.iter().enumerate() {
                assert_eq!(Name::of(one) == Name::of(other), n == m, "{one} {other}");
            }
        }
    }
}
