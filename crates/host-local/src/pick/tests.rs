use cni_spec::address::{parse_cidr, parse_ip};

use super::*;
use crate::range::Wanted;

/// Subnets with commas between them, each `subnet` or `subnet first-last`.
fn set(text: &str) -> RangeSet {
    let wanted = text.split(',').map(|range| {
        let (subnet, window) = range.split_once(' ').unwrap_or((range, ""));
        let window = window
            .split_once('-')
            .map(|(start, end)| (parse_ip(start).unwrap(), parse_ip(end).unwrap()));
        Wanted {
            subnet: Some(parse_cidr(subnet).unwrap()),
            start: window.map(|(start, _)| start),
            end: window.map(|(_, end)| end),
            gateway: None,
        }
    });
    RangeSet::check(&wanted.collect::<Vec<_>>()).unwrap()
}

fn ip(text: &str) -> IpAddr {
    parse_ip(text).unwrap()
}

/// The whole round, in order.
fn round(subnets: &str, last: Option<&str>) -> Vec<String> {
    let set = set(subnets);
    let round = Round::after(last.map(ip), &set);
    (0..round.len())
        .filter_map(|step| round.at(step))
        .map(|ip| ip.to_string())
        .collect()
}

/// The first free address by the bits, which must be the one that trying each in turn finds.
fn first_free(subnets: &str, last: Option<&str>, taken: &[&str]) -> Option<String> {
    let set = set(subnets);
    let round = Round::after(last.map(ip), &set);
    let taken: Vec<IpAddr> = taken.iter().map(|it| ip(it)).collect();
    let mut stretch = Stretch::of(&round, 0);
    taken.iter().for_each(|ip| stretch.take(*ip));
    let found = stretch.first_free();
    let tried = (0..round.len().min(Stretch::STEPS))
        .filter_map(|step| round.at(step))
        .find(|ip| !taken.contains(ip));
    assert_eq!(found, tried);
    found.map(|ip| ip.to_string())
}

fn hosts(hosts: &[u8]) -> Vec<String> {
    hosts.iter().map(|host| format!("10.0.0.{host}")).collect()
}

#[test]
fn a01_a_round_wraps_once() {
    assert_eq!(round("10.0.0.0/29", None), hosts(&[2, 3, 4, 5, 6]));
    assert_eq!(
        round("10.0.0.0/29", Some("10.0.0.6")),
        hosts(&[2, 3, 4, 5, 6])
    );
    assert_eq!(
        round("10.0.0.0/29", Some("10.0.0.3")),
        hosts(&[4, 5, 6, 2, 3])
    );
    assert_eq!(
        round("10.0.0.0/29", Some("10.0.0.1")),
        hosts(&[2, 3, 4, 5, 6]),
        "after the gateway"
    );
}

#[test]
fn a02_the_first_address_is_after_the_gateway() {
    for (subnet, taken, first) in [
        ("10.0.0.0/29", &[][..], "10.0.0.2"),
        ("10.0.0.0/30", &[], "10.0.0.2"),
        ("2001:db8:1::/64", &[], "2001:db8:1::2"),
        ("10.0.0.0/29", &["10.0.0.2"], "10.0.0.3"),
        ("2001:db8:1::/64", &["2001:db8:1::2"], "2001:db8:1::3"),
    ] {
        assert_eq!(
            first_free(subnet, None, taken).as_deref(),
            Some(first),
            "{subnet}"
        );
    }
}

#[test]
fn a03_the_last_reserved_address_is_tried_last() {
    for (last, taken, expected) in [
        ("10.0.0.5", &[][..], "10.0.0.6"),
        ("10.0.0.3", &["10.0.0.4", "10.0.0.5"], "10.0.0.6"),
        ("10.0.0.5", &["10.0.0.6"], "10.0.0.2"),
        ("128.0.0.9", &[], "10.0.0.2"),
        ("fd00::1", &[], "10.0.0.2"),
        (
            "10.0.0.5",
            &["10.0.0.6", "10.0.0.2", "10.0.0.3", "10.0.0.4"],
            "10.0.0.5",
        ),
    ] {
        assert_eq!(
            first_free("10.0.0.0/29", Some(last), taken).as_deref(),
            Some(expected),
            "after {last}"
        );
    }
    let all = hosts(&[2, 3, 4, 5, 6]);
    assert_eq!(
        first_free(
            "10.0.0.0/29",
            None,
            &all.iter().map(String::as_str).collect::<Vec<_>>()
        ),
        None
    );
}

#[test]
fn a04_ranges_follow_each_other() {
    let two = "10.0.0.0/30,10.0.1.0/30";
    assert_eq!(round(two, None), ["10.0.0.2", "10.0.1.2"]);
    assert_eq!(round(two, Some("10.0.0.2")), ["10.0.1.2", "10.0.0.2"]);
    assert_eq!(round(two, Some("10.0.1.2")), ["10.0.0.2", "10.0.1.2"]);
    assert_eq!(
        first_free(two, None, &["10.0.0.2"]).as_deref(),
        Some("10.0.1.2")
    );
    assert_eq!(
        first_free(two, Some("10.0.0.2"), &["10.0.1.2"]).as_deref(),
        Some("10.0.0.2")
    );
}

#[test]
fn a09_explicit_ends_are_given_too() {
    let two = "192.168.1.0/30 192.168.1.0-192.168.1.3,192.168.1.4/30 192.168.1.4-192.168.1.7";
    let hosts = |hosts: &[u8]| {
        hosts
            .iter()
            .map(|host| format!("192.168.1.{host}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(round(two, None), hosts(&[0, 2, 3, 4, 6, 7]));
    assert_eq!(round(two, Some("192.168.1.3")), hosts(&[4, 6, 7, 0, 2, 3]));
}

#[test]
fn the_size_of_a_range_costs_nothing() {
    for (subnet, last, expected) in [
        ("2001:db8::/32", None, "2001:db8::2"),
        (
            "2001:db8::/32",
            Some("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
            "2001:db8::2",
        ),
        ("fd00::/64", Some("fd00::ffff:ffff:ffff"), "fd00::1:0:0:0"),
        ("10.0.0.0/8", Some("10.255.255.254"), "10.0.0.2"),
        ("::/0", Some("::ffff"), "::1:0"),
    ] {
        let set = set(subnet);
        let round = Round::after(last.map(ip), &set);
        let mut stretch = Stretch::of(&round, 0);
        stretch.take(ip("10.200.0.1"));
        stretch.take(ip("2001:db8:8000::"));
        assert!(stretch.taken.len() <= 1 << 14);
        assert_eq!(stretch.first_free(), Some(ip(expected)), "{subnet}");
    }
}

#[test]
fn a_stretch_knows_only_its_own() {
    let set = set("10.0.0.0/8");
    let round = Round::after(None, &set);
    let mut first = Stretch::of(&round, 0);
    let mut second = Stretch::of(&round, Stretch::STEPS);
    for number in 0..Stretch::STEPS {
        let ip = set.at(number).unwrap().1;
        first.take(ip);
        second.take(ip);
    }
    second.take(ip("10.16.0.1"));
    assert_eq!(first.first_free(), None);
    assert_eq!(second.first_free(), Some(ip("10.16.0.2")));
}

#[test]
fn an_almost_full_range_has_one_left() {
    let set = set("10.1.0.0/16");
    let round = Round::after(Some(ip("10.1.7.7")), &set);
    let mut stretch = Stretch::of(&round, 0);
    for number in 0..set.len() {
        let (_, ip) = set.at(number).unwrap();
        if ip != self::ip("10.1.7.6") {
            stretch.take(ip);
        }
    }
    assert_eq!(stretch.first_free(), Some(ip("10.1.7.6")));
    stretch.take(ip("10.1.7.6"));
    assert_eq!(stretch.first_free(), None);
}
