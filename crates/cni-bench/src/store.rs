//! A lease store as the reference would have left it: one file an address.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::case::Leases;

/// Fills the store of the network `name`, 10.`number`.0.0/16, below `data`.
pub(crate) fn fill(data: &Path, name: &str, number: u8, leases: Leases) -> io::Result<()> {
    let folder = data.join(name);
    fs::create_dir_all(&folder)?;
    let taken = taken(number, leases);
    for address in &taken {
        let owner = format!("{:064x}\r\neth0", u32::from(*address));
        fs::write(folder.join(address.to_string()), owner)?;
    }
    match cursor(&taken, leases) {
        Some(cursor) => fs::write(folder.join("last_reserved_ip.0"), cursor.to_string()),
        None => Ok(()),
    }
}

fn taken(number: u8, leases: Leases) -> Vec<Ipv4Addr> {
    let first = u32::from(Ipv4Addr::new(10, number, 0, 2));
    let last = u32::from(Ipv4Addr::new(10, number, 255, 254));
    match leases {
        Leases::Consecutive(count) => (first..first + count).map(Ipv4Addr::from).collect(),
        Leases::NearlyAll => (first..=last)
            .filter(|address| (address - first) % 100 != 99)
            .map(Ipv4Addr::from)
            .collect(),
    }
}

/// The address given out last.
fn cursor(taken: &[Ipv4Addr], leases: Leases) -> Option<Ipv4Addr> {
    match leases {
        Leases::Consecutive(_) => taken.last().copied(),
        Leases::NearlyAll => taken.first().copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearly_all_leaves_every_hundredth() {
        let taken = taken(9, Leases::NearlyAll);
        assert_eq!(taken.len(), 64_878); // of 65,533
        assert!(!taken.contains(&Ipv4Addr::new(10, 9, 0, 101)));
        assert!(taken.contains(&Ipv4Addr::new(10, 9, 255, 254)));
        assert_eq!(
            cursor(&taken, Leases::NearlyAll),
            Some(Ipv4Addr::new(10, 9, 0, 2))
        );
    }

    #[test]
    fn a_store_holds_leases_and_a_cursor() {
        let data = tempfile::tempdir().unwrap();
        fill(data.path(), "net", 9, Leases::Consecutive(250)).unwrap();
        let folder = data.path().join("net");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 251);
        assert_eq!(
            fs::read_to_string(folder.join("last_reserved_ip.0")).unwrap(),
            "10.9.0.251"
        );
        assert!(
            fs::read_to_string(folder.join("10.9.0.2"))
                .unwrap()
                .ends_with("0a090002\r\neth0")
        );
    }
}
