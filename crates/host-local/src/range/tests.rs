use cni_spec::address::{parse_cidr, parse_ip};

use super::*;

/// `subnet [start=IP] [end=IP] [gateway=IP]`
fn wanted(text: &str) -> Wanted {
    let mut words = text.split(' ');
    let mut wanted = Wanted {
        subnet: words.next().map(|it| parse_cidr(it).unwrap()),
        ..Wanted::default()
    };
    for word in words {
        let (key, ip) = word.split_once('=').unwrap();
        let ip = Some(parse_ip(ip).unwrap());
        match key {
            "start" => wanted.start = ip,
            "end" => wanted.end = ip,
            "gateway" => wanted.gateway = ip,
            other => panic!("{other}"),
        }
    }
    wanted
}

fn range(text: &str) -> Range {
    wanted(text).check().unwrap()
}

/// Ranges with commas between them.
fn set(text: &str) -> Result<RangeSet, RangeError> {
    RangeSet::check(&text.split(',').map(wanted).collect::<Vec<_>>())
}

fn ip(text: &str) -> IpAddr {
    parse_ip(text).unwrap()
}

#[test]
fn g01_defaults_and_explicit_fields() {
    for (text, window, gateway) in [
        ("192.0.2.0/24", "192.0.2.1-192.0.2.254", "192.0.2.1"),
        ("192.0.2.0/25", "192.0.2.1-192.0.2.126", "192.0.2.1"),
        ("192.0.2.128/30", "192.0.2.129-192.0.2.130", "192.0.2.129"),
        (
            "2001:db8:1::/64",
            "2001:db8:1::1-2001:db8:1:0:ffff:ffff:ffff:ffff",
            "2001:db8:1::1",
        ),
        (
            "192.0.2.0/24 start=192.0.2.40 end=192.0.2.50 gateway=192.0.2.254",
            "192.0.2.40-192.0.2.50",
            "192.0.2.254",
        ),
        (
            "192.0.2.0/24 start=192.0.2.0 end=192.0.2.255 gateway=10.9.9.9",
            "192.0.2.0-192.0.2.255",
            "10.9.9.9",
        ),
        (
            "192.0.2.0/24 start=192.0.2.255",
            "192.0.2.255-192.0.2.255",
            "192.0.2.1",
        ),
    ] {
        let range = range(text);
        assert_eq!(
            (range.to_string().as_str(), range.gateway),
            (window, ip(gateway)),
            "{text}"
        );
    }
}

// G02, G03
#[test]
fn g02_g03_what_makes_no_sense_is_refused() {
    let host_bits = "Network has host bits set. For a subnet mask of length";
    for (text, sentence) in [
        (
            "192.0.2.1/24",
            format!("{host_bits} 24 the network address is 192.0.2.0"),
        ),
        (
            "192.0.3.0/23",
            format!("{host_bits} 23 the network address is 192.0.2.0"),
        ),
        (
            "2001:db8:1::1/64",
            format!("{host_bits} 64 the network address is 2001:db8:1::"),
        ),
        (
            "2001:db8:1:1::/63",
            format!("{host_bits} 63 the network address is 2001:db8:1::"),
        ),
        (
            "192.0.2.0/31",
            "Network 192.0.2.0/31 too small to allocate from".to_owned(),
        ),
        (
            "2001:db8::/127",
            "Network 2001:db8::/127 too small to allocate from".to_owned(),
        ),
        (
            "::ffff:10.0.0.0/127",
            "Network 10.0.0.0/31 too small to allocate from".to_owned(),
        ),
        (
            "::ffff:10.0.0.0/120",
            "IPNet IP and Mask version mismatch".to_owned(),
        ),
        (
            "192.0.2.0/24 start=192.0.3.0",
            "RangeStart 192.0.3.0 not in network 192.0.2.0/24".to_owned(),
        ),
        (
            "192.0.2.0/24 end=192.0.4.0",
            "RangeEnd 192.0.4.0 not in network 192.0.2.0/24".to_owned(),
        ),
        (
            "192.0.2.0/24 end=192.0.2.0",
            "RangeEnd 192.0.2.0 not in network 192.0.2.0/24".to_owned(),
        ),
        (
            "192.0.2.0/24 start=2001:db8::5",
            "RangeStart 2001:db8::5 not in network 192.0.2.0/24".to_owned(),
        ),
        (
            "192.0.2.0/24 start=192.0.2.50 end=192.0.2.40",
            "RangeStart 192.0.2.50 not in network 192.0.2.0/24".to_owned(),
        ),
    ] {
        assert_eq!(
            wanted(text).check().unwrap_err().to_string(),
            sentence,
            "{text}"
        );
    }
    assert_eq!(
        Wanted::default().check().unwrap_err().to_string(),
        "IP <nil> not v4 nor v6"
    );
}

#[test]
fn g04_a_range_contains_its_window_and_no_more() {
    for (text, inside, outside) in [
        (
            "192.0.2.0/24",
            &["192.0.2.1", "192.0.2.55", "192.0.2.254"][..],
            &[
                "192.0.2.0",
                "192.0.2.255",
                "192.0.1.255",
                "192.0.3.0",
                "2001:db8::5",
                "::c000:205",
            ][..],
        ),
        (
            "192.0.2.0/24 start=192.0.2.40 end=192.0.2.50",
            &["192.0.2.40", "192.0.2.50"],
            &["192.0.2.39", "192.0.2.51"],
        ),
        (
            "192.0.2.0/30 start=192.0.2.0 end=192.0.2.3",
            &["192.0.2.0", "192.0.2.3"],
            &["192.0.1.255", "192.0.2.4"],
        ),
        (
            "2001:db8:1::/64",
            &["2001:db8:1::1", "2001:db8:1:0:ffff:ffff:ffff:ffff"],
            &[
                "2001:db8:1::",
                "2001:db8:0:ffff::",
                "2001:db8:1:1::",
                "192.0.2.1",
            ],
        ),
    ] {
        let range = range(text);
        assert!(inside.iter().all(|it| range.contains(ip(it))), "{text}");
        assert!(outside.iter().all(|it| !range.contains(ip(it))), "{text}");
    }
}

#[test]
fn g05_ranges_overlap_both_ways_or_neither() {
    for (one, two, overlap) in [
        ("10.0.0.0/24", "10.0.1.0/24", false),
        ("10.0.0.0/24", "2001:db8::/64", false),
        ("10.0.0.0/20", "10.0.0.0/20", true),
        ("10.0.0.0/20", "10.0.1.0/24", true),
        (
            "10.0.0.0/24 end=10.0.0.20",
            "10.0.0.0/24 start=10.0.0.21",
            false,
        ),
        (
            "10.0.0.0/24 end=10.0.0.20",
            "10.0.0.0/24 start=10.0.0.20",
            true,
        ),
        (
            "10.0.0.0/24 start=10.0.0.50 end=10.0.0.60",
            "10.0.0.0/24 start=10.0.0.40 end=10.0.0.70",
            true,
        ),
        ("2001:db8::/64", "2001:db8::/65", true),
        ("2001:db8::/64", "2001:db8:0:1::/64", false),
    ] {
        assert_eq!(range(one).overlaps(&range(two)), overlap, "{one} and {two}");
        assert_eq!(range(two).overlaps(&range(one)), overlap, "{two} and {one}");
    }
}

#[test]
fn g06_sets_of_ranges() {
    let two = set("192.0.2.0/24,172.16.0.0/16").unwrap();
    assert_eq!(
        two.to_string(),
        "192.0.2.1-192.0.2.254,172.16.0.1-172.16.255.254"
    );
    assert_eq!(
        two.range_of(ip("172.16.3.4")).unwrap().subnet.to_string(),
        "172.16.0.0/16"
    );
    for outside in ["192.0.99.99", "172.17.0.1", "2001:db8::1"] {
        assert_eq!(two.range_of(ip(outside)), None);
    }
    for (text, sentence) in [
        (
            "192.0.2.0/24,192.0.2.0/25",
            "subnets 192.0.2.1-192.0.2.254 and 192.0.2.1-192.0.2.126 overlap",
        ),
        (
            "10.0.0.0/24,10.0.1.0/24,10.0.0.0/16",
            "subnets 10.0.0.1-10.0.0.254 and 10.0.0.1-10.0.255.254 overlap",
        ),
        ("192.0.2.0/24,2001:db8::/64", "mixed address families"),
    ] {
        assert_eq!(set(text).unwrap_err().to_string(), sentence);
    }
    assert_eq!(
        RangeSet::check(&[]).unwrap_err().to_string(),
        "empty range set"
    );
    for (one, other, overlap) in [
        ("10.0.0.0/24,10.0.2.0/24", "10.0.1.0/24", false),
        ("10.0.0.0/24,10.0.2.0/24", "10.0.4.0/24,10.0.2.128/25", true),
        ("10.0.0.0/24", "2001:db8::/64", false),
    ] {
        let (one, other) = (set(one).unwrap(), set(other).unwrap());
        assert_eq!(
            (one.overlaps(&other), other.overlaps(&one)),
            (overlap, overlap)
        );
    }
}

#[test]
fn l02_addresses_compare_within_their_family() {
    let v4 = range("10.0.0.0/24 start=10.0.0.9 end=10.0.0.100");
    assert!(
        v4.contains(ip("10.0.0.10")) && !v4.contains(ip("10.0.0.8")),
        "compared as numbers, not as text"
    );
    assert!(
        v4.contains(ip("::ffff:10.0.0.10")),
        "IPv4 in sixteen bytes is IPv4"
    );
    assert!(
        !v4.contains(ip("::a00:a")),
        "an IPv6 address of the same number is another address"
    );
}

#[test]
fn positions_and_addresses_are_each_other_s_inverse() {
    let set = set("10.0.0.0/30,10.1.0.0/29 start=10.1.0.4").unwrap();
    let all: Vec<String> = (0..)
        .map_while(|at| set.at(at))
        .map(|(_, ip)| ip.to_string())
        .collect();
    assert_eq!(
        all,
        ["10.0.0.1", "10.0.0.2", "10.1.0.4", "10.1.0.5", "10.1.0.6"]
    );
    assert_eq!(set.len(), 5);
    for (at, text) in all.iter().enumerate() {
        assert_eq!(set.position(ip(text)), Some(at as u128));
    }
    assert_eq!(set.position(ip("10.1.0.3")), None);
}

#[test]
fn the_largest_ranges_do_not_overflow() {
    let all = self::set("::/0 start=::").unwrap();
    assert_eq!(all.len(), u128::MAX);
    assert_eq!(
        all.at(u128::MAX - 1).unwrap().1,
        ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe")
    );
    assert_eq!(
        self::set("0.0.0.0/0 end=255.255.255.255").unwrap().len(),
        u128::from(u32::MAX)
    );
}
