//! Attributes as netlink lays them out: length, kind, value, padding (include/uapi/linux/netlink.h).

/// The attribute holds others.
pub(crate) const NLA_F_NESTED: u16 = 0x8000;

/// Lays an attribute out behind others: length, kind, value, padding.
pub(crate) fn push_attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend((4 + value.len() as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Attributes as netlink lays them out.
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The value of an attribute.
    pub(crate) fn find(bytes: &'a [u8], kind: u16) -> Option<&'a [u8]> {
        Attributes(bytes)
            .find(|&(found, _)| found == kind)
            .map(|(_, value)| value)
    }

    /// The value of an attribute inside others.
    pub(crate) fn find_in(bytes: &'a [u8], path: &[u16]) -> Option<&'a [u8]> {
        path.iter()
            .try_fold(bytes, |bytes, &kind| Attributes::find(bytes, kind))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        const NLA_TYPE_MASK: u16 = 0x3fff;
        let [a, b, c, d, ..] = *self.0 else {
            return None;
        };
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & NLA_TYPE_MASK, value))
    }
}

/// The text up to the first zero.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_laid_out_and_found() {
        let mut bytes = Vec::new();
        push_attribute(&mut bytes, 1, b"abc");
        let mut inner = Vec::new();
        push_attribute(&mut inner, 7, &[1, 2, 3, 4]);
        push_attribute(&mut bytes, 2 | NLA_F_NESTED, &inner);
        assert_eq!(bytes.len(), 8 + 4 + 8);
        assert_eq!(Attributes::find(&bytes, 1), Some(&b"abc"[..]));
        assert_eq!(
            Attributes::find_in(&bytes, &[2, 7]),
            Some(&[1, 2, 3, 4][..])
        );
        assert_eq!(Attributes::find(&bytes, 3), None);
        // A length that lies is the end.
        assert_eq!(Attributes(&[200, 0, 1, 0]).count(), 0);
        assert_eq!(Attributes(&[0, 0, 1, 0]).count(), 0);
    }
}
