//! Whose a lease is: what a lease file says.

use cni_spec::Attachment;
use cni_spec::name::{ContainerId, IfName};

/// The holder of leases: a container's interface, or, in files of long ago, a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) id: String,
    pub(crate) ifname: Option<String>,
}

/// What a lease file has in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// An owner, as ADD writes it.
    Owner(Owner),
    /// Nothing, or what a crash or a failing disk leaves: no text at all. Nobody can ever free such a lease.
    Damaged,
    /// Some other text: somebody reserved the address by hand.
    Note,
}

impl Owner {
    pub(crate) fn of(attachment: &Attachment) -> Owner {
        let (id, ifname) = (attachment.container_id.as_str(), attachment.ifname.as_str());
        Owner {
            id: id.trim().to_owned(),
            ifname: Some(ifname.to_owned()),
        }
    }

    /// The container alone.
    pub(crate) fn container(&self) -> Owner {
        Owner {
            id: self.id.clone(),
            ifname: None,
        }
    }

    /// The text of the lease file: `id`, CR, LF, `ifname`, with no newline at the end.
    pub(crate) fn text(&self) -> String {
        match &self.ifname {
            Some(ifname) => format!("{}\r\n{ifname}", self.id),
            None => self.id.clone(),
        }
    }
}

impl Content {
    /// White space around the text does not matter.
    pub(crate) fn read(bytes: &[u8]) -> Content {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Content::Damaged;
        };
        let text = text.trim();
        if text.is_empty() || text.contains('\0') {
            return Content::Damaged;
        }
        let (id, ifname) = match text.split_once("\r\n") {
            Some((id, ifname)) => (id, Some(ifname)),
            None => (text, None),
        };
        if ContainerId::new(id).is_err()
            || ifname.is_some_and(|ifname| IfName::new(ifname).is_err())
        {
            return Content::Note;
        }
        Content::Owner(Owner {
            id: id.to_owned(),
            ifname: ifname.map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // H04, H06
    #[test]
    fn h06_what_lease_files_say() {
        let owner = |id: &str, ifname: Option<&str>| {
            Content::Owner(Owner {
                id: id.to_owned(),
                ifname: ifname.map(str::to_owned),
            })
        };
        for (bytes, expected) in [
            (&b"ctr1\r\neth0"[..], owner("ctr1", Some("eth0"))),
            (b"  ctr1\r\neth0 \n\n", owner("ctr1", Some("eth0"))),
            (b"ctr1", owner("ctr1", None)),
            (b"ctr1\r\n", owner("ctr1", None)),
            (b"ctr1 \r\neth0", Content::Note),
            (b"ctr1\neth0", Content::Note),
            (b"the printer", Content::Note),
            (b"../x\r\neth0", Content::Note),
            (b"ctr1\r\neth0\r\nmore", Content::Note),
            (b"", Content::Damaged),
            (b" \r\n", Content::Damaged),
            (b"\0\0\0\0", Content::Damaged),
            (b"\xff\xfe", Content::Damaged),
        ] {
            assert_eq!(Content::read(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let owner = Owner {
            id: "ctr1".to_owned(),
            ifname: Some("eth0".to_owned()),
        };
        assert_eq!(owner.text(), "ctr1\r\neth0");
        for owner in [owner.container(), owner] {
            assert_eq!(
                Content::read(owner.text().as_bytes()),
                Content::Owner(owner)
            );
        }
    }
}
