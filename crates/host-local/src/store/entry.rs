//! What the index knows of an owner: its lease files, and the boot that they were taken in.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;

use cni_spec::address;

use crate::owner::Owner;

/// Owners and what they hold.
pub(super) type Leases = BTreeMap<Owner, Entry>;

/// What one owner holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(super) boot: BootId,
    pub(super) leases: Vec<Lease>,
}

/// One lease file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lease {
    /// The file's name in the network's folder: an address, as ADD writes it. The reference also finds leases in folders
    /// below, which somebody has moved there: then the name has those folders in it.
    pub(super) name: String,
    /// When the file was written, in nanoseconds since 1970: tells it from a later one of the same name.
    pub(super) written: u64,
}

/// One run of the kernel, by half of the random id that it has; no network namespace outlives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BootId(u64);

impl Entry {
    /// The addresses of the leases.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.files().map(|(_, ip)| ip)
    }

    /// The leases that are of an address, by the files' names in the network's folder.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&Path, IpAddr)> {
        self.leases.iter().filter_map(|lease| {
            let file = Path::new(&lease.name);
            let ip = address::parse_ip(file.file_name()?.to_str()?).ok()?;
            Some((file, ip))
        })
    }

    /// Does every lease of `self` stand in `known` too, as the same file?
    pub(super) fn is_within(&self, known: &Entry) -> bool {
        self.leases.iter().all(|lease| known.leases.contains(lease))
    }

    /// From the text that [`Entry`] prints as.
    pub(super) fn parse(text: &str) -> Option<Entry> {
        let mut parts = text.split('/');
        let boot = BootId(hexadecimal(parts.next()?)?);
        let mut leases = Vec::new();
        while let Some(name) = parts.next() {
            let written = hexadecimal(parts.next()?)?;
            leases.push(Lease {
                name: name.to_owned(),
                written,
            });
        }
        (!leases.is_empty()).then_some(Entry { boot, leases })
    }
}

/// `boot/name/written[/name/written]…`; no name has a `/` in it, since there is no index where there are folders below.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.boot.0)?;
        self.leases
            .iter()
            .try_for_each(|lease| write!(f, "/{}/{:x}", lease.name, lease.written))
    }
}

impl BootId {
    /// From the kernel's file. Without it no boot is another one.
    pub(super) fn read(file: &Path) -> BootId {
        let mut text = [0; 64];
        let len = File::open(file)
            .and_then(|mut file| file.read(&mut text))
            .unwrap_or_default();
        let digits = text[..len]
            .iter()
            .filter(|byte| byte.is_ascii_hexdigit())
            .take(16);
        let digits: String = digits.map(|&byte| char::from(byte)).collect();
        BootId(hexadecimal(&digits).unwrap_or_default())
    }

    pub(super) fn is_known(self) -> bool {
        self.0 != 0
    }

    /// Is this certainly another run than `now`?
    pub(super) fn is_before(self, now: BootId) -> bool {
        self.is_known() && now.is_known() && self != now
    }
}

fn hexadecimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_as_it_prints() {
        let lease = |name: &str, written| Lease {
            name: name.to_owned(),
            written,
        };
        let entry = Entry {
            boot: BootId(0xabc),
            leases: vec![lease("10.1.2.2", 0x17), lease("fd00::2", 1)],
        };
        assert_eq!(entry.to_string(), "0000000000000abc/10.1.2.2/17/fd00::2/1");
        assert_eq!(Entry::parse(&entry.to_string()), Some(entry));
        for bad in [
            "",
            "abc",
            "abc/10.1.2.2",
            "abc/10.1.2.2/",
            "abc/10.1.2.2/+1",
            "x/10.1.2.2/1",
            "abc/a/1/b",
        ] {
            assert_eq!(Entry::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_unknown_boot_is_no_other_one() {
        let (none, one, two) = (BootId(0), BootId(1), BootId(2));
        assert!(one.is_before(two));
        assert!(!one.is_before(one) && !none.is_before(one) && !one.is_before(none));
        assert_eq!(BootId::read(Path::new("/nowhere")), none);
        assert!(BootId::read(Path::new("/proc/sys/kernel/random/boot_id")).is_known());
    }
}
